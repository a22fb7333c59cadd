"""The report of a run: one page of HTML that needs no other file, for a reader who was not there."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd

from infscale.analysis.answers import UNDECIDED
from infscale.analysis.tables import Tables
from infscale.analysis.tables.points import P99_INDEPENDENT, P99_REQUESTS
from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.errors import DataError
from infscale.experiment.design.design import P95, Design
from infscale.experiment.design.labels import count
from infscale.records.components import PARTS
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run
from infscale.report import claims
from infscale.report.figures import overview
from infscale.report.figures.arms.usage import at_common_rate
from infscale.report.figures.files import DPI, file_stem, png_of
from infscale.report.figures.parts import PAGE_IN
from infscale.report.figures.picture import Picture
from infscale.report.limits import limits
from infscale.report.results import FindingResult, Reported, anchors_ms, machine_text, speed_of
from infscale.report.wording import metric_text, saturation_range
from infscale.vocabulary import number

Cells = Mapping[str, str]
"""The texts of one row of a table, by column."""

PAGE_PIXELS = PAGE_IN * DPI
"""Pixels of a picture as wide as a page."""

NONE = "–"
"""What a table shows where there is no number."""


class Shown(NamedTuple):
    """A figure in the page.

    Attributes:
        uri: the picture as a data URI; "" for one that was not drawn, because the run has no numbers for it.
        width: share of the page's width, %.
        alternative, caption: its texts.
    """

    uri: str
    width: int
    alternative: str
    caption: str


def page(
    run: Run,
    tables: Tables,
    finding: Reported,
    figures: Path,
    others: Sequence[FindingResult] = (),
    advice: pd.DataFrame | None = None,
) -> str:
    """Return the text of ``report.html``; equal for equal data.

    Args:
        run, tables: a stored run and its tables.
        finding: the question that it answers.
        figures: folder of the figures, which were drawn before.
        others: results of other findings, whose figures are in the same folder.
        advice: what to deploy, a row for each question and choice, as :func:`infscale.report.advice.table` returns it;
            None leaves that section out.

    Raises:
        DataError: a figure is absent or was drawn from another run.
    """
    manifest = run.manifest
    own = claims.claims(run, tables)
    every = [*own, *(claim for result in others for claim in result.claims)]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("infscale.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        run=manifest,
        question=finding.question,
        headline=claims.headline(every),
        overview=_overview(every, figures),
        lead=[*finding.lead(run, tables), *claims.headline(own)],
        answer=finding.answer(run, tables),
        design=_design(run, tables.trials),
        machine=_machine(manifest, tables.trials, others),
        arms=_arms(tables),
        figures=[_figure(picture, run, tables, figures) for picture in finding.pictures],
        contrasts=[
            _contrast(row, name)
            for (_, row), name in zip(tables.contrasts.iterrows(), claims.table(own)["contrast"], strict=True)
        ],
        ratios=_by_arm(tables.ratios, _ratio, ["arm", "reference"]),
        sensitivity=[_sensitivity(row) for _, row in tables.sensitivity.iterrows()],
        parts=(*PARTS, "response"),
        components=_by_arm(tables.components, _components),
        points=_by_arm(tables.points, _point),
        limits=limits(run, tables),
        others=[
            (result, [_drawn(result, k, figures) for k in range(len(result.figures))], _elsewhere(manifest, result))
            for result in others
        ],
        claimed=_claimed,
        usage=_by_arm(at_common_rate(run, tables), _usage),
        p99_requests=f"{P99_REQUESTS:,}",
        p99_independent=f"{P99_INDEPENDENT:,}",
        advice=[] if advice is None else _advice(advice),
    )


def _advice(lines: pd.DataFrame) -> list[tuple[str, list[Cells]]]:
    """Return each question with its lines of advice."""
    return [
        (str(question), [{str(name): str(value) for name, value in row.items()} for _, row in own.iterrows()])
        for question, own in lines.groupby("question", sort=False)
    ]


# ------------------------------------------------------------------------------------------- what was run


def _design(run: Run, trials: pd.DataFrame) -> Cells:
    """Return what was run, in names and values."""
    manifest, design = run.manifest, run.manifest.design
    counts = ", ".join(f"{count:,} {PHASES[str(phase)]}" for phase, count in trials["phase"].value_counts().items())
    built = [f"{item.label}: version {item.version}, {item.runtime}" for item in manifest.implementations.values()]
    same = "the arms of a block get the same arrival times in a lifetime"
    return {
        "Arms": "; ".join(run.labels[arm] for arm in run.measured),
        "Serving systems": "; ".join(built),
        "Model": ", ".join(dict.fromkeys(arm.model for arm in design.arms)),
        "Arrivals": f"Poisson, open loop; {same}",
        "Arrival rates λ (requests/s)": _rates(run),
        "Lifetimes": _lifetimes(manifest),
        "Trials": f"{counts}; {_span(trials['duration_s'])} s of arrivals each",
        "Named before the run": _contrasts(run, design),
        "Timeout": f"{design.timeout_s:g} s",
        "Profile": f"{design.profile} ({manifest.status})",
        "Time": f"{_time(manifest.started_at)} to {_time(manifest.finished_at)}",
    }


PHASES = {
    "pilot": "in the pilot",
    "grid": "at set rates",
    "sensitivity": "of the sensitivity check",
    "search": "in the search for λ*",
    "capacity": "in the search for the rate at the SLO",
}
"""Why trials were made, in words."""


def _rates(run: Run) -> str:
    """Return the rates of moderate load of each block of arms."""
    design, texts = run.manifest.design, []
    for arms in design.blocks():
        rates = run.manifest.rates_per_s.get(design.block(arms[0]), [])
        texts.append(f"{' and '.join(run.labels[arm] for arm in arms)}: {', '.join(map(number, sorted(rates)))}")
    return "; ".join(texts)


def _lifetimes(manifest: RunManifest) -> str:
    """Return how many lifetimes the servers of each group of arms had, and when contrasts are looked at."""
    groups = manifest.design.groups()
    counts = [sum(one.arms == arms for one in manifest.lifetimes) for arms in groups]
    looks = (
        f"the first look at the contrasts was set to {manifest.first_look}" if manifest.first_look else "no look yet"
    )
    many = f"{count(len(groups), 'group')} of arms" if len(groups) > 1 else "all arms together"
    return f"{', '.join(map(str, counts))} of {many}; {looks}"


def _contrasts(run: Run, design: Design) -> str:
    """Return the comparisons that were named before the run; whatever else it shows was looked for afterwards."""
    pairs = dict.fromkeys(f"{run.labels[c.arm]} ÷ {run.labels[c.reference]}" for c in design.contrasts)
    if not pairs:
        return "nothing"
    metrics = " and ".join(dict.fromkeys(metric_text(contrast.metric) for contrast in design.contrasts))
    return f"{metrics}, corrected after Holm over all {len(design.contrasts)}: {'; '.join(pairs)}"


def _overview(every: Sequence[claims.Claim], folder: Path) -> Shown:
    """Draw the picture of all contrasts, and write it beside the figures with its numbers."""
    claims.save(every, folder)
    table = claims.table(every)
    if table.empty:
        return Shown("", 0, overview.ALTERNATIVE, "")
    return Shown(_uri(png_of(overview.draw(table))), 100, overview.ALTERNATIVE, overview.CAPTION)


def _span(values: "pd.Series[float]") -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _time(value: str | None) -> str:
    """Return a stored time without fractions of a second."""
    return "not finished" if not value else value[:16].replace("T", " ") + " UTC"


def _machine(manifest: RunManifest, trials: pd.DataFrame, others: Sequence[FindingResult]) -> Cells:
    """Return the machine and its state while measuring."""
    machine = manifest.machine
    engine_us = float(trials["engine_cpu_us_per_request"].median())
    return {
        "CPU": f"{machine.cpu}, {machine.cores} cores{f'; {machine.caches}' if machine.caches else ''}",
        "Speed of one process (by session)": _speeds(manifest),
        "Anchor: Triton, gRPC, 1 row, far below its limit": _anchors(manifest, others),
        "Frequency governor": machine.governor or "not known",
        "Memory": f"{machine.memory_gib:.3g} GiB",
        "System": f"{machine.os}, kernel {machine.kernel}; clock {manifest.clock}",
        "Steal (largest of a trial)": f"{100 * trials['steal_fraction'].astype(float).max():.2f} %",
        "Load average (1 min, largest)": f"{number(float(trials['loadavg_1m'].astype(float).max()))} processes",
        "Load generator": f"{100 * trials['engine_cpu_share'].median():.0f} % of a core (median of trials), "
        f"{number(engine_us)} µs of CPU a request",
    }


def _speeds(manifest: RunManifest) -> str:
    """Return how fast the machine was at the start of each session."""
    known = [session.calibration for session in manifest.sessions if session.calibration]
    return (
        "; ".join(
            f"{number(one.python / 1e6)} million additions/s in Python, {number(one.numpy)} products/s of matrices of "
            f"128 × 128, {number(one.calls / 1e6)} million system calls/s, {number(one.loopback)} loopback round trips"
            for one in known
        )
        or "not measured"
    )


def _anchors(manifest: RunManifest, others: Sequence[FindingResult]) -> str:
    """Return how fast the arm was that every run has, and how much that differs between the sessions of this page."""
    own = [one.anchor for one in manifest.sessions if one.anchor]
    texts = [f"p50 {number(a.response_p50_ms)} ms, p95 {number(a.response_p95_ms)} ms" for a in own]
    here = "; ".join(texts) or "not measured"
    every = [*anchors_ms(manifest), *(time for result in others for time in result.anchors_ms)]
    if len(every) < 2:
        return here
    spread = 100 * float(np.expm1(np.std(np.log(every), ddof=1)))
    return (
        f"{here}. In the {len(every)} sessions of this page p50 was {number(min(every))} to {number(max(every))} ms "
        f"(standard deviation {number(spread)} %)"
    )


def _elsewhere(manifest: RunManifest, result: FindingResult) -> str:
    """Return in which a finding's machine differs from the page's, and how much faster it was; "" for the same."""
    here, speed = machine_text(manifest.machine), speed_of(manifest)
    same = result.machine == here
    if same and (not speed or not result.speed or abs(result.speed / speed - 1) < SPEED_WITHIN):
        return ""
    ratio = f", {number(result.speed / speed)} times as fast in Python" if speed and result.speed else ""
    return f"Measured on {'the same kind of machine' if same else f'another machine: {result.machine}'}{ratio}."


SPEED_WITHIN = 0.1
"""Sections of a page whose machines differ in speed by less than this share are not told apart."""


# ------------------------------------------------------------------------------------------------ tables


def _arms(tables: Tables) -> list[Cells]:
    """Return the rows of the table of arms."""
    shares = tables.shares.set_index("arm")
    return [
        {
            "label": str(arm["label"]),
            **{name: f"{arm[name]:,}" for name in ("valid", "unsteady", "saturated", "invalid")},
            "saturation": saturation_range(arm),
            "below": f"{shares.loc[arm['arm'], 'valid']:,} of {shares.loc[arm['arm'], 'trials']:,}",
            "reasons": str(shares.loc[arm["arm"], "reasons"]) or NONE,
        }
        for _, arm in tables.arms.iterrows()
    ]


def _by_arm(
    table: pd.DataFrame, describe: "Callable[[pd.Series[Any]], Cells]", keys: Sequence[str] = ("arm",)
) -> list[list[Cells]]:
    """Return the rows of a table, those of an arm together, so that its name needs to be written once."""
    groups = table.groupby(list(keys), sort=False)
    return [[describe(row) for _, row in group.iterrows()] for _, group in groups]


def _point(point: "pd.Series[Any]") -> Cells:
    """Return one row of the table of points."""
    return {
        **{name: str(point[name]) for name in ("label", "verdict")},
        **{name: f"{point[name]:,}" for name in ("lifetimes", "unsteady", "failed")},
        "rate": number(point["rate_per_s"]),
        "achieved": number(point["achieved_per_s"]),
        "roundtrip": _percentile(point, metric("roundtrip", "p95")),
        "spread": _percent(point[f"{P95}_spread"]),
        **{quantile: _percentile(point, metric("response", quantile)) for quantile in QUANTILES},
    }


def _percentile(point: "pd.Series[Any]", column: str) -> str:
    """Return a percentile with its interval; a lower bound with its sign; "–" where it is withheld."""
    value = point[column]
    if np.isnan(value):
        return NONE
    if point[f"{column}_bound"]:
        return f"≥ {number(value)}"
    mark = "†" if point.get(f"{column}_below_floor") else ""
    interval = _interval(point[f"{column}_low"], point[f"{column}_high"])
    return f"{number(value)}{mark} {interval}".rstrip()


def _interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]" if not np.isnan(low) else ""


def _percent(value: float) -> str:
    return NONE if np.isnan(value) else f"{100 * value:.0f} %"


def _contrast(row: "pd.Series[Any]", name: str) -> Cells:
    """Return one row of the table of contrasts, with the name of its two arms."""
    return {
        "contrast": name,
        "answer": str(row["answer"]),
        "lifetimes": str(row["looked_at"] or row["lifetimes"]),
        "metric": metric_text(row["metric"]),
        "ratio": _number(row["ratio"]),
        "interval": _interval(row["ratio_low"], row["ratio_high"]) or NONE,
        "spread": _percent(row["spread"]),
        "holm": _number(row["p_holm"]),
        "needed": NONE if np.isnan(row["needed"]) else f"{row['needed']:,.0f} for {row['needed_ratio']:g}",
    }


def _claimed(result: FindingResult) -> list[Cells]:
    """Return the rows of the table of another finding's contrasts."""
    return [
        {
            **{name: str(row[name]) for name in ("contrast", "answer", "lifetimes")},
            "metric": metric_text(row["metric"]),
            "ratio": _number(row["ratio"]),
            "interval": _ends(row["low"], row["high"]),
        }
        for _, row in claims.table(result.claims).iterrows()
    ]


def _ends(low: float, high: float) -> str:
    """Return a stored interval, which has no number where an end is open; "–" where both are."""
    if np.isnan(low) and np.isnan(high):
        return NONE
    return f"[{number(0 if np.isnan(low) else low)}, {number(np.inf if np.isnan(high) else high)}]"


def _ratio(row: "pd.Series[Any]") -> Cells:
    """Return one row of the table of ratios by rate."""
    return {
        **{name: str(row[name]) for name in ("label", "reference_label", "lifetimes")},
        "rate": number(row["rate_per_s"]),
        "share": _percent(row["share"]),
        "ratio": _number(row["ratio"]),
        "interval": _interval(row["ratio_low"], row["ratio_high"]) or NONE,
    }


def _number(value: float) -> str:
    return NONE if np.isnan(value) else number(value)


def _sensitivity(row: "pd.Series[Any]") -> Cells:
    """Return one row of the table of the sensitivity check."""
    return {
        **{name: str(row[name]) for name in ("label", "reference_label", "lifetimes")},
        "rate": number(row["rate_per_s"]),
        "ratio": _number(row["ratio"]),
        "interval": _interval(row["ratio_low"], row["ratio_high"]) or NONE,
        "conclusion": UNDECIDED if not row["differs"] else "slower" if row["ratio"] > 1 else "faster",
    }


def _usage(row: "pd.Series[Any]") -> Cells:
    """Return one row of the table of the CPU of a request."""
    return {
        "label": str(row["label"]),
        "rate": number(row["rate_per_s"]),
        "group": str(row["group"]),
        "lifetimes": f"{row['lifetimes']:,}",
        "cpu": _number(row["cpu_us_per_request"]),
        "interval": _interval(row["cpu_us_per_request_low"], row["cpu_us_per_request_high"]) or NONE,
    }


def _components(row: "pd.Series[Any]") -> Cells:
    """Return one row of the table of components."""
    return {
        "label": str(row["label"]),
        "rate": number(row["rate_per_s"]),
        "lifetimes": str(row["lifetimes"]),
        **{part: number(row[f"mean_{part}_ms"]) for part in (*PARTS, "response")},
    }


# ----------------------------------------------------------------------------------------------- figures


def _figure(picture: Picture, run: Run, tables: Tables, folder: Path) -> Shown:
    """Return a picture of the run that the page is about."""
    caption = picture.caption(run, tables)
    if picture.numbers(run, tables).empty:
        return Shown("", 0, picture.alternative, caption)
    path = folder / f"{file_stem(run.manifest.design.finding, picture.name)}.png"
    return _read(path, run.id, picture.alternative, caption)


def _drawn(result: FindingResult, place: int, folder: Path) -> Shown:
    """Return one of the figures of another finding."""
    figure = result.figures[place]
    return _read(folder / figure.file, result.run_id, figure.alternative, figure.caption)


def _read(path: Path, run_id: str, alternative: str, caption: str) -> Shown:
    """Return a picture as a figure of the page, if it was drawn from this run."""
    numbers, draw_again = path.with_suffix(".csv"), "draw again with infscale figures"
    if not (path.is_file() and numbers.is_file()):
        raise DataError(f"{path} is absent: {draw_again}")
    drawn_from = pd.read_csv(numbers, usecols=["run_id"], dtype=str)["run_id"].unique().tolist()
    if drawn_from != [run_id]:
        raise DataError(f"{path} was drawn from {', '.join(drawn_from)}, not from {run_id}: {draw_again}")
    content = path.read_bytes()
    pixels = int.from_bytes(content[16:20], "big")  # PNG's header holds the width there
    return Shown(_uri(content), min(100, round(100 * pixels / PAGE_PIXELS)), alternative, caption)


def _uri(content: bytes) -> str:
    """Return a PNG's content as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
