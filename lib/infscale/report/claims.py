"""What runs claim: the named contrasts of one or many findings, as rows of a file and as sentences for a first page."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pandas as pd

from infscale.analysis.answers import EQUAL, UNDECIDED
from infscale.analysis.tables import Tables
from infscale.experiment.design.design import AT_MODERATE_LOAD
from infscale.experiment.design.labels import EMBEDDED, count, framework, labels
from infscale.records.runs import Run
from infscale.report.figures.files import DIGITS, write
from infscale.report.wording import QUANTITIES, WORDS, equal_text, needed_text, quoted
from infscale.vocabulary import number

FILE = "contrasts.csv"
"""The file of all contrasts, beside the figures."""


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One named contrast of a run, and what is said of it.

    Attributes:
        finding, run_id: where it comes from.
        subject: what both arms have in common, in words; "" where that is nothing that needs saying.
        arm, reference: what tells the two arms apart, in words.
        metric: a key of :data:`infscale.experiment.design.design.MARGINS`.
        ratio: arm ÷ reference; None where it is not known, or infinite.
        low, high: ends of its 95 % interval; None where there is no bound, or no look yet.
        answer: "differs", "equal" or "undecided", after Holm's correction.
        lifetimes: those that the interval rests on.
        needed: how many would decide a ratio of ``needed_ratio``; both None where it is decided, or not known.
    """

    finding: str
    run_id: str
    subject: str
    arm: str
    reference: str
    metric: str
    ratio: float | None
    low: float | None
    high: float | None
    answer: str
    lifetimes: int
    needed: float | None
    needed_ratio: float | None


class Names(NamedTuple):
    """How a contrast is called: what both arms have in common, and what tells the two apart."""

    subject: str
    arm: str
    reference: str


def names(run: Run) -> dict[tuple[int, int], Names]:
    """Return the names of every pair of arms that a run compares; two pairs differ in one of them at least.

    Arms are told apart from the others of their block, so that all arms that are compared with one reference have names
    of their own. The subject is the serving system where it is that of both, and what tells blocks on one system apart.
    """
    design = run.manifest.design
    pairs = list(dict.fromkeys((one.arm, one.reference) for one in design.contrasts))
    apart: dict[int, str] = {}
    for block in design.blocks():
        apart |= dict(zip(block, labels([design.arms[arm] for arm in block]), strict=True))
    systems = {pair: _system(run, pair[1]) if _alike(run, *pair) else "" for pair in pairs}
    found = {}
    for pair, system in systems.items():
        blocks = list(dict.fromkeys(other[1] for other, one in systems.items() if one == system))
        payloads = dict(zip(blocks, labels([design.arms[reference] for reference in blocks]), strict=True))
        parts = (system, payloads[pair[1]] if len(blocks) > 1 else "")
        found[pair] = Names(", ".join(filter(None, parts)), apart[pair[0]], apart[pair[1]])
    return found


def _alike(run: Run, arm: int, reference: int) -> bool:
    """Return whether two arms were measured on one implementation."""
    return {arm, reference} <= set(run.measured) and run.implementation(arm) == run.implementation(reference)


def _system(run: Run, arm: int) -> str:
    """Return the short name of what answered an arm."""
    embedded = EMBEDDED in run.implementation(arm)
    return f"{framework(run.manifest.design.arms[arm])}{f', {EMBEDDED}' if embedded else ''}"


def claims(run: Run, tables: Tables) -> list[Claim]:
    """Return the named contrasts of a run, in the order of the design."""
    called = names(run)
    return [
        Claim(
            finding=run.manifest.design.finding,
            run_id=run.id,
            **called[int(row["arm"]), int(row["reference"])]._asdict(),
            metric=row["metric"],
            ratio=_known(row["ratio"]),
            low=_known(row["ratio_low"]),
            high=_known(row["ratio_high"]),
            answer=row["answer"],
            lifetimes=int(row["looked_at"] or row["lifetimes"]),
            needed=_known(row["needed"]),
            needed_ratio=_known(row["needed_ratio"]),
        )
        for row in tables.contrasts.to_dict("records")
    ]


def _known(value: float) -> float | None:
    """Return ``value`` to the digits that are stored; None for 0, NaN and infinity: there is no such end."""
    return float(f"{value:.{DIGITS - 1}e}") if math.isfinite(value) and value > 0 else None


def table(found: Iterable[Claim]) -> pd.DataFrame:
    """Return contrasts as a table, a row each."""
    rows = [
        {
            "finding": one.finding,
            "contrast": f"{f'{one.subject}: ' if one.subject else ''}{one.arm} ÷ {one.reference}",
            "metric": one.metric,
            "ratio": one.ratio,
            "low": one.low,
            "high": one.high,
            "answer": one.answer,
            "lifetimes": one.lifetimes,
            "run": one.run_id,
        }
        for one in found
    ]
    columns = ["finding", "contrast", "metric", "ratio", "low", "high", "answer", "lifetimes", "run"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("ratio", "low", "high"), float))


def save(found: Iterable[Claim], folder: Path) -> Path:
    """Write the contrasts to ``folder`` as :data:`FILE`, and return its path."""
    return write(folder / FILE, table(found).to_csv(index=False, lineterminator="\n"))


# ------------------------------------------------------------------------------------------ sentences

MOST_SENTENCES = 8
"""Most sentences of a first page, the line of undecided contrasts included."""


def headline(found: Sequence[Claim]) -> list[str]:
    """Return the sentences of a first page: decided contrasts by what they compare, then the undecided in one line.

    Contrasts of one finding with the same arms, metric and direction share a sentence, which says of how many cases it
    holds: "in 4 of 6 cases" contradicts no other sentence. The first finding, whose page it is, has as many as it
    needs, or a line that says that nothing of it is decided; each further one has the sentence with the most contrasts,
    as long as there is room.
    """
    groups: dict[tuple[str, str, str, str, str], list[Claim]] = {}
    for one in found:
        if one.answer != UNDECIDED:
            way = EQUAL if one.answer == EQUAL else "above" if _above(one) else "below"
            groups.setdefault((one.finding, one.metric, one.arm, one.reference, way), []).append(one)
    first = found[0].finding if found else ""
    own = [group for key, group in groups.items() if key[0] == first]
    others: dict[str, list[Claim]] = {}
    for key, group in groups.items():
        if key[0] != first and len(group) > len(others.get(key[0], [])):
            others[key[0]] = group
    cases = Counter(map(_compared, found))
    sentences = [sentence(group, cases[_compared(group[0])]) for group in own]
    if others and not own:
        many = sum(one.finding == first for one in found)
        sentences = [f"None of the {count(many, 'named contrast')} of this question is decided; of others:"]
    sentences += [_titled(group, cases[_compared(group[0])]) for group in others.values()]
    return [*sentences[: MOST_SENTENCES - 1], *_undecided(found)]


def _compared(one: Claim) -> tuple[str, str, str, str]:
    """Return what a contrast has in common with those that differ in their subject alone."""
    return one.finding, one.metric, one.arm, one.reference


def _titled(group: Sequence[Claim], cases: int) -> str:
    """Return a sentence with the name of its finding."""
    return f"{group[0].finding.replace('-', ' ').capitalize()}: {sentence(group, cases)}"


def sentence(group: Sequence[Claim], cases: int) -> str:
    """Return one sentence on contrasts with the same arms, metric and direction, of so many ``cases`` in all."""
    share = f"all {cases}" if len(group) == cases else f"{len(group)} of {cases}"
    said = _said(group)
    return said if cases == 1 else f"In {share} cases {said}"


def _said(group: Sequence[Claim]) -> str:
    """Return what holds of all contrasts of a group, with each one's numbers."""
    one, (what, much) = group[0], QUANTITIES[group[0].metric]
    load = " at moderate load" if one.metric in AT_MODERATE_LOAD else ""
    arm, reference = quoted(one.arm), quoted(one.reference)
    if one.answer == EQUAL:
        ratios = _joined([_numbers(claim, "") for claim in group])
        return f"{arm} and {reference} are {equal_text(one.metric)}{load}: the ratio is {ratios}."
    ratios = _joined([_numbers(claim, f" times {much}" if k == 0 else " times") for k, claim in enumerate(group)])
    return f"{arm} {WORDS[one.metric, _above(one)]} {reference}: its {what}{load} is {ratios}."


def _above(one: Claim) -> bool:
    """Return whether a ratio that differs from 1 is above it; of one that has no end, its known bound is."""
    return (one.ratio or one.low or 0) > 1


def _numbers(one: Claim, unit: str) -> str:
    """Return a ratio with its interval, and where it was measured; of one that has no end, its known bound."""
    where = f" ({one.subject})" if one.subject else ""
    low, high = (None if end is None else number(end) for end in (one.low, one.high))
    if one.ratio is None:
        return f"{f'at least {low}' if _above(one) else f'at most {high}'}{unit}{where}"
    return f"{number(one.ratio)}{unit} [{low or 0}, {high or '∞'}]{where}"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _undecided(found: Sequence[Claim]) -> list[str]:
    """Return one line on all contrasts that are undecided; none where there is none."""
    rest = [one for one in found if one.answer == UNDECIDED]
    if not rest:
        return []
    needs: dict[float, list[float]] = {}
    for one in rest:
        if one.needed is not None and one.needed_ratio is not None:
            needs.setdefault(one.needed_ratio, []).append(one.needed)
    more = [
        f"{needed_text(min(needs[ratio]), max(needs[ratio]))} would decide a ratio of {ratio:g}"
        for ratio in sorted(needs, reverse=True)
    ]
    return ["; ".join([f"Undecided: {len(rest)} of {count(len(found), 'named contrast')}", *more]) + "."]
