"""What ``infscale compare`` says: as text, as JUnit's XML, and as a table in Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from infscale.analysis.answers import UNDECIDED, needed
from infscale.analysis.candidate.judgement import NOT_WORSE, WORSE, judgements, overall
from infscale.cli import printed
from infscale.cli.load_report import SHOWN
from infscale.experiment.design.design import FIRST, GAP, MORE_IS_BETTER
from infscale.experiment.design.labels import count
from infscale.records.manifest import commonest
from infscale.report.limits import validity
from infscale.report.wording import QUANTITIES, contrast_text, interval_text, quoted, saturation_text
from infscale.vocabulary import number

if TYPE_CHECKING:
    from infscale.analysis.candidate.stored import Between
    from infscale.analysis.tables import Tables
    from infscale.records.runs import Run


@dataclass(frozen=True)
class Case:
    """One contrast.

    Attributes:
        name: what is compared.
        judgement: worse, not worse or undecided.
        ratio: candidate ÷ reference with its interval, in words.
        margin: what the ratio may be, in words.
        sentence: what it says.
        metric, value, low, high, limit: the same as numbers: the metric, its ratio and the ends of its 95 % interval
            (NaN where there is none), and the most, or of rates the least, that the ratio may be.
    """

    name: str
    judgement: str
    ratio: str
    margin: str
    sentence: str
    metric: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    limit: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """A candidate against its reference: the cases, and the lines that follow them."""

    cases: Sequence[Case]
    details: Sequence[str]

    @property
    def judgement(self) -> str:
        """What is said of the candidate."""
        return overall([case.judgement for case in self.cases])

    @property
    def sentence(self) -> str:
        """The judgement as a sentence."""
        by = {said: [case.name for case in self.cases if case.judgement == said] for said in (WORSE, UNDECIDED)}
        match self.judgement:
            case "worse":
                return f"Worse: the candidate is worse beyond the margin in {' and '.join(by[WORSE])}."
            case "not worse":
                return "Not worse: the candidate is within the margin, or better, in everything that was compared."
            case _:
                return f"Undecided: {' and '.join(by[UNDECIDED]) or 'nothing'} could be within the margin or beyond it."


def limit_of(metric: str, margin: float) -> float:
    """Return the number that candidate ÷ reference may not exceed, or of rates not fall below."""
    return 1 / margin if metric in MORE_IS_BETTER else margin


def margin_text(metric: str, margin: float) -> str:
    """Return what candidate ÷ reference may be."""
    return f"at {'least' if metric in MORE_IS_BETTER else 'most'} {number(limit_of(metric, margin))}"


def of_endpoints(
    run: "Run", tables: "Tables", names: Sequence[str], edges: Mapping[str, float], slo_ms: float
) -> Comparison:
    """Return what a run that compares two endpoints says.

    Args:
        run: whose arms are the reference and the candidate.
        tables: of the run.
        names: of the reference and of the candidate.
        edges: the margin of each metric.
        slo_ms: limit of the p95 response time, ms.
    """
    cases = []
    said = judgements(run, tables.contrasts, edges)
    for (_, row), judgement in zip(tables.contrasts.iterrows(), said, strict=True):
        metric, name = row["metric"], names[row["arm"]]
        said_of = contrast_text(row, name, names[row["reference"]])
        ratio = f"{number(row['ratio'])} ({interval_text(row['ratio_low'], row['ratio_high'])})"
        if judgement == NOT_WORSE and not (row["ratio_low"] > 0 or np.isfinite(row["ratio_high"])):
            most = tables.trials.loc[tables.trials["arm"] == row["arm"], "rate_per_s"].max()
            ratio = "no ratio"
            said_of = f"{name} kept up with every rate that was offered, up to {number(most)} requests/s"
        text = f"{said_of}: {judgement}"
        if judgement == UNDECIDED and np.isfinite(row["spread"]):
            many = needed(row["spread"], edges[metric], 1)
            text += f" (an equal candidate would need about {many} lifetimes to be called not worse)"
        what, edge = QUANTITIES[metric][0], edges[metric]
        numbers = (metric, row["ratio"], row["ratio_low"], row["ratio_high"], limit_of(metric, edge))
        cases.append(Case(what, judgement, ratio, margin_text(metric, edge), _capital(f"{text}."), *numbers))
    return Comparison(cases, [*_numbers(tables, names, slo_ms), *_failures(run, names)])


def _numbers(tables: "Tables", names: Sequence[str], slo_ms: float) -> list[str]:
    """Return the numbers on which the cases rest, as lines."""
    lines = []
    for row in tables.ratios.sort_values("rate_per_s").to_dict("records"):
        known = np.isfinite(row["ratio_low"])
        interval = f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else "(no interval)"
        value = f"{number(row['ratio'])} {interval}" if np.isfinite(row["ratio"]) else "unknown: one did not keep up"
        rate = number(row["rate_per_s"])
        lines.append(f"  λ = {rate} requests/s: p95 candidate ÷ reference {value}, {row['lifetimes']} lifetimes")
    for _, arm in tables.arms.iterrows():
        points = tables.points[tables.points["arm"] == arm["arm"]]
        within = points[(points["verdict"] == "VALID") & (points["response_p95_ms"] <= slo_ms)]
        most = f"up to {number(within['rate_per_s'].max())} requests/s" if len(within) else "at no rate that was tried"
        cpu = points["engine_cpu_us_per_request"].median()
        lines.append(
            f"  {_capital(names[int(arm['arm'])])}: λ* {saturation_text(arm)}; p95 within {slo_ms:g} ms {most}; "
            f"client CPU {number(cpu)} µs a request"
        )
    return [*lines, *_streams(tables, names), "  " + validity(tables)]


def _streams(tables: "Tables", names: Sequence[str]) -> list[str]:
    """Return what the streams of each endpoint brought at the larger rate of moderate load, as lines."""
    if FIRST not in tables.summary:
        return []
    return [
        f"  {_capital(names[int(row['arm'])])} at {number(row['rate_per_s'])} requests/s: p95 to the first message "
        f"{number(row[FIRST])} ms from the schedule, {number(row['first_message_from_send_p95_ms'])} ms from the send; "
        f"gaps {number(row['gap_p50_ms'])} ms at p50, {number(row[GAP])} ms at p99, "
        f"longest {number(row['stall_ms'])} ms; "
        f"{number(row['messages_per_read'])} messages a read, {number(row['messages_per_s'])} messages/s"
        for row in tables.summary.to_dict("records")
    ]


def _failures(run: "Run", names: Sequence[str]) -> list[str]:
    """Return why requests failed, the most frequent reasons of each endpoint, as lines."""
    lines = []
    for arm, name in enumerate(names):
        trials = [trial.manifest for trial in run.trials if trial.manifest.arm_number == arm]
        reasons = commonest(reason for trial in trials for reason in trial.generator.reasons)
        lines += [f"  {_capital(name)}: {r.requests:,} × {r.status}: {r.text}" for r in reasons[:SHOWN]]
    return ["  Failed requests, at any rate:", *lines] if lines else []


def of_runs(reference: "Run", candidate: "Run", between: "Sequence[Between]", edges: Mapping[str, float]) -> Comparison:
    """Return what two stored runs say."""
    cases = []
    for one in between:
        what = f"{QUANTITIES[one.metric][0]} of {quoted(one.label)}"
        lifetimes = f"{one.lifetimes[0]} and {one.lifetimes[1]} lifetimes"
        ratio = f"no ratio ({one.why})" if one.why else f"{number(one.ratio)} ({interval_text(one.low, one.high)})"
        at = f" at {number(one.rate_per_s)} requests/s" if np.isfinite(one.rate_per_s) else ""
        text = f"{what}{at}, {candidate.id} ÷ {reference.id}: {ratio}, {lifetimes}: {one.judgement}."
        edge, sentence = edges[one.metric], _capital(text)
        numbers = (one.metric, one.ratio, one.low, one.high, limit_of(one.metric, edge))
        cases.append(Case(what, one.judgement, ratio, margin_text(one.metric, edge), sentence, *numbers))
    return Comparison(cases, _circumstances(reference, candidate, len(between)))


def _circumstances(reference: "Run", candidate: "Run", contrasts: int) -> list[str]:
    """Return what a reader must know of two runs that were measured one after the other, as lines."""
    first, second = reference.manifest, candidate.manifest
    lines = [
        f"  The runs share no lifetimes (begun {first.started_at} and {second.started_at}): intervals are Welch's,",
        "  between two samples. What changed on the machine meanwhile is in the ratios, and not in their intervals.",
        f"  “Worse” is corrected for {count(contrasts, 'contrast')} (Bonferroni).",
    ]
    speeds = [
        [getattr(one.calibration, name) for one in run.sessions if one.calibration]
        for name in ("python", "numpy", "calls", "loopback")
        for run in (first, second)
    ]
    if all(speeds):
        ratios = [number(float(np.mean(b) / np.mean(a))) for a, b in zip(speeds[::2], speeds[1::2], strict=True)]
        named = zip(("Python", "numpy", "system calls", "loopback"), ratios, strict=True)
        lines.append(f"  Speed of the machine, candidate's ÷ reference's: {', '.join(f'{n} {r}' for n, r in named)}.")
    names = sorted(first.versions.keys() | second.versions.keys())
    changed = [
        f"{name} {first.versions.get(name, 'absent')} → {second.versions.get(name, 'absent')}"
        for name in names
        if first.versions.get(name) != second.versions.get(name)
    ]
    return [*lines, f"  Packages that differ: {', '.join(changed)}."] if changed else lines


def _capital(text: str) -> str:
    """Return a text that begins with a capital letter, unless it begins with a name that has none."""
    return text if text.startswith(("gRPC", "λ")) else text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------------------ files


def text(comparison: Comparison) -> str:
    """Return the comparison as text: the judgement, each contrast's sentence, then the numbers that they rest on."""
    lines = [comparison.sentence, *(case.sentence for case in comparison.cases), "", *comparison.details]
    return "\n".join(lines)


def record(comparison: Comparison) -> printed.Comparison:
    """Return the comparison as it is printed as JSON."""
    return printed.Comparison(
        judgement=comparison.judgement,
        sentence=comparison.sentence,
        cases=[
            printed.Case(
                name=case.name,
                metric=case.metric,
                judgement=case.judgement,
                ratio=case.value,
                ratio_low=case.low,
                ratio_high=case.high,
                margin=case.margin,
                limit=case.limit,
                sentence=case.sentence,
            )
            for case in comparison.cases
        ],
        details=[line.strip() for line in comparison.details],
    )


def junit(file: Path, result: Comparison | str) -> None:
    """Write JUnit's XML: a test case for each contrast; an error's message is one test case in error.

    Worse is a failure, undecided is skipped: CI systems show both with the sentence.
    """
    cases = result.cases if isinstance(result, Comparison) else []
    said = [case.judgement for case in cases]
    counts = {
        "tests": str(len(cases) or 1),
        "failures": str(said.count(WORSE)),
        "errors": str(int(isinstance(result, str))),
        "skipped": str(said.count(UNDECIDED)),
    }
    suite = ElementTree.Element("testsuite", {"name": "infscale compare", **counts})
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", classname="infscale.compare", name=_xml(case.name))
        if case.judgement == NOT_WORSE:
            ElementTree.SubElement(element, "system-out").text = _xml(case.sentence)
        else:
            kind = "failure" if case.judgement == WORSE else "skipped"
            outcome = ElementTree.SubElement(element, kind, message=_xml(f"{case.judgement}: {case.ratio}"))
            outcome.text = _xml(case.sentence)
    if isinstance(result, str):
        element = ElementTree.SubElement(suite, "testcase", classname="infscale.compare", name="measurement")
        ElementTree.SubElement(element, "error", message=_xml(result.partition("\n")[0])).text = _xml(result)
    ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Return a text without the characters that XML 1.0 does not hold: what a server answers may have any."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)


def markdown(file: Path, result: Comparison | str) -> None:
    """Append the judgement and a table of the contrasts, or an error's message, as ``$GITHUB_STEP_SUMMARY`` is used."""
    if isinstance(result, str):
        lines = [f"**Error:** {_cell(result)}"]
    else:
        rows = [[case.name, case.ratio, case.margin, case.judgement] for case in result.cases]
        lines = [
            f"**{result.sentence}**",
            "",
            "| what | candidate ÷ reference | may be | judgement |",
            "|---|---|---|---|",
            *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
            "",
            *(f"- {_cell(case.sentence)}" for case in result.cases),
        ]
    with file.open("a", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
