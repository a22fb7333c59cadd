"""The named contrasts of a run: one value in each lifetime, and what the looks at them have shown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from infscale.analysis.answers import ALPHA, UNDECIDED, Claim, answers, claim, corrected, looks, needed
from infscale.analysis.tables.saturation import by_slo, lifetime_logs
from infscale.analysis.tables.trials import Row, identified, kept_up, used
from infscale.experiment.design.design import (
    CAPACITY,
    GAP,
    MARGINS,
    P95,
    SATURATION,
    STREAMED,
    TIMES,
    Contrast,
)
from infscale.records.gate import INVALID, SATURATED, VALID, Floats
from infscale.records.manifest import RunManifest
from infscale.vocabulary import number

EFFECTS = (1.2, 1.1, 1.05, 1.02)
"""Ratios for which an undecided contrast says how many lifetimes would decide it: the first that needs more than the
last look had."""

LEAST_REQUESTS = 100
"""Fewest requests, after the warm-up, of a lifetime's p95 at one rate: five of them lie beyond it."""

LEAST_GAPS = 1000
"""Fewest gaps, after the warm-up, of a lifetime's p99 of the gaps between messages at one rate: ten lie beyond it."""

CONTRAST_COLUMNS = (
    "reference",
    "reference_label",
    "metric",
    "ratio",
    "ratio_low",
    "ratio_high",
    "answer",
    "p_holm",
    "p_value",
    "lifetimes",
    "looked_at",
    "spread",
    "needed",
    "needed_ratio",
    "sessions",
)
"""The columns of :func:`contrasts_table` beside those that identify the arm."""


def contrasts_table(manifest: RunManifest, trials: pd.DataFrame, contrasts: Iterable[Contrast] = ()) -> pd.DataFrame:
    """Return one row per contrast of which both arms were measured.

    ``ratio`` is arm ÷ reference with its interval ``ratio_low`` to ``ratio_high`` (95 % over all looks; 0 or ∞ where
    only a bound is known, NaN before the first look); ``answer`` what is said of it after Holm's correction over all
    rows ("differs", "equal" or "undecided"), by the adjusted ``p_holm``. ``lifetimes`` have a value, ``looked_at`` of
    them rest in the last look; ``spread`` is the standard deviation of the logarithms of the lifetimes' ratios.
    ``needed`` is how many lifetimes would decide a ratio of ``needed_ratio`` (:data:`EFFECTS`) at the next look, of an
    undecided contrast.
    ``sessions`` holds the ratio of each session, "0.57, 0.71", where they differ (:func:`by_session`); else "".

    Args:
        manifest: of the run.
        trials: of :func:`infscale.analysis.tables.trials.trials_table`.
        contrasts: those that share the error; none for the design's own.
    """
    there = set(trials["arm"])
    named = [one for one in contrasts or manifest.design.contrasts if {one.arm, one.reference} <= there]
    values, claims = lifetime_values(manifest, trials, named), claims_of(manifest, trials, named)
    said, adjusted = answers(claims), corrected(claims)
    open_ = sum(answer == UNDECIDED for answer in said)
    labels = dict(zip(trials["arm"], trials["label"], strict=True))
    rows = [
        {
            "arm": one.arm,
            "reference": one.reference,
            "reference_label": labels[one.reference],
            "metric": one.metric,
            "answer": answer,
            "p_holm": p_holm,
            **_numbers(what, open_ if answer == UNDECIDED else 0),
            "sessions": by_session(logs, _sessions(manifest, one.arm)),
        }
        for one, what, answer, p_holm, logs in zip(named, claims, said, adjusted, values, strict=True)
    ]
    numbers = ("ratio", "ratio_low", "ratio_high", "p_holm", "p_value", "spread", "needed", "needed_ratio")
    kinds = dict.fromkeys(numbers, float)
    table = pd.DataFrame(rows, columns=["arm", *CONTRAST_COLUMNS]).astype({"arm": int, "reference": int, **kinds})
    return identified(table, trials)


def claims_of(
    manifest: RunManifest, trials: pd.DataFrame, named: Sequence[Contrast], alpha: float = ALPHA
) -> list[Claim]:
    """Return what the looks at each contrast have shown; ``alpha`` is the error that the looks at an interval share."""
    values = lifetime_values(manifest, trials, named)
    first = manifest.first_look or max(manifest.design.least, 2**30)
    seen = values_at_looks(manifest, trials, named, first)
    return [
        claim(logs, first, MARGINS[one.metric], own, alpha) for one, logs, own in zip(named, values, seen, strict=True)
    ]


SESSIONS_ALPHA = 0.01
"""Probability of calling the sessions of one contrast different where they are not."""


def by_session(logs: Floats, sessions: Sequence[int]) -> str:
    """Return the ratio of each session where the sessions differ, by Welch's t or, of more than two, by F; else "".

    Sessions with fewer than two finite values are left out: nothing can be said of them.

    Args:
        logs: the logarithm of the ratio in each lifetime, shape (n,).
        sessions: the session of each lifetime.
    """
    own = [logs[np.equal(sessions, one) & np.isfinite(logs)] for one in dict.fromkeys(sessions)]
    own = [values for values in own if values.size > 1 and np.ptp(values) > 0]
    if len(own) < 2:
        return ""
    from scipy import stats  # costs half a second

    test = stats.ttest_ind(*own, equal_var=False) if len(own) == 2 else stats.f_oneway(*own)
    return ", ".join(number(float(np.exp(values.mean()))) for values in own) if test.pvalue < SESSIONS_ALPHA else ""


def _sessions(manifest: RunManifest, arm: int) -> list[int]:
    """Return the session of each lifetime of an arm's group, in their order."""
    return [one.session for one in sorted(manifest.lifetimes, key=lambda one: one.number) if arm in one.arms]


def _numbers(what: Claim, family: int) -> Row:
    known = family and np.isfinite(what.spread)
    looked_at = what.used if np.isfinite(what.p_differs) else 0
    enough = {ratio: needed(what.spread, ratio, family) for ratio in EFFECTS} if known else {}
    open_ratio = next((ratio for ratio, count in enough.items() if count > looked_at), EFFECTS[-1])
    return {
        "ratio": what.ratio,
        "ratio_low": what.low,
        "ratio_high": what.high,
        "p_value": what.p_differs,
        "lifetimes": what.values,
        "looked_at": looked_at,
        "spread": what.spread,
        "needed": float(enough.get(open_ratio, np.nan)),
        "needed_ratio": open_ratio if known else np.nan,
    }


def lifetime_values(manifest: RunManifest, trials: pd.DataFrame, contrasts: Iterable[Contrast]) -> list[Floats]:
    """Return the logarithm of each contrast's ratio in each lifetime of its group, in their order.

    Of p95 it is the mean over the moderate rates. An arm that did not keep up with one of them in at least half of the
    lifetimes, or whose p95 is a request that did not succeed, counts as +∞. Of λ* and of the rate at the SLO see
    :func:`infscale.analysis.tables.saturation.lifetime_logs`. NaN where the lifetime says nothing: a trial is INVALID
    or UNSTEADY, has too few requests, or both arms are infinite. The metrics of streams are likewise means over the
    moderate rates; those that are no times have no value where the arm did not keep up.
    """
    tables = lifetime_tables(manifest, trials)
    counts = Counter(arm for lifetime in manifest.lifetimes for arm in lifetime.arms)
    return [ratio_of(one, tables)[: counts[one.arm]] for one in contrasts]


def values_at_looks(
    manifest: RunManifest, trials: pd.DataFrame, contrasts: Sequence[Contrast], first: int
) -> list[list[Floats]]:
    """Return the values of each contrast as they were at each of its looks, from the lifetimes until then alone."""
    counts = Counter(arm for lifetime in manifest.lifetimes for arm in lifetime.arms)
    found: list[list[Floats]] = [[] for _ in contrasts]
    for size in looks(first, max(counts.values(), default=0)):
        tables = lifetime_tables(manifest, trials[trials["lifetime"] < size])
        for own, one in zip(found, contrasts, strict=True):
            if counts[one.arm] >= size:
                own.append(ratio_of(one, tables)[:size])
    return found


def lifetime_tables(manifest: RunManifest, trials: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the logarithms of what contrasts compare, by metric: a row for each lifetime, a column for each arm."""
    lifetimes = range(max((one.number for one in manifest.lifetimes), default=-1) + 1)
    saturation, capacity = (
        lifetime_logs(own).pivot(index="lifetime", columns="arm", values="value") for own in (trials, by_slo(trials))
    )
    moderate = (P95, *(metric for metric in STREAMED if metric in trials))
    tables = {metric: _at_moderate_load(manifest, trials, metric) for metric in moderate}
    tables |= {SATURATION: saturation, CAPACITY: capacity}
    return {metric: table.reindex(index=lifetimes) for metric, table in tables.items()}


def ratio_of(one: Contrast, tables: Mapping[str, pd.DataFrame]) -> Floats:
    """Return the logarithm of a contrast's ratio in each lifetime, from :func:`lifetime_tables`."""
    table = tables.get(one.metric, pd.DataFrame(index=tables[P95].index))  # a run without a stream has none of theirs
    arm, reference = (table.get(k, pd.Series(np.nan, table.index)).to_numpy() for k in (one.arm, one.reference))
    with np.errstate(invalid="ignore"):  # ∞ − ∞ says nothing
        return np.asarray(arm - reference, dtype=np.float64)


def values_at_moderate_load(manifest: RunManifest, trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the logarithm of a metric of each trial at a moderate rate that is used: its value may be +∞ or NaN.

    The columns are ``lifetime``, ``arm``, ``block``, ``rate_per_s`` and ``value``.
    """
    frame = used(trials)
    moderate = [
        rate in manifest.rates_per_s.get(block, ())
        for block, rate in zip(frame["block"], frame["rate_per_s"], strict=True)
    ]
    frame = frame[np.array(moderate, dtype=bool)]
    saturated = frame["verdict"] == SATURATED
    sound = (saturated | (frame["verdict"] == VALID)) & (frame["n"] >= LEAST_REQUESTS)
    endless = pd.Series(False, frame.index)
    if metric in TIMES:
        bound = frame[f"{metric}_bound"].astype(bool) & (frame["verdict"] != INVALID)
        endless = (saturated & ~kept_up(frame)) | bound
    else:
        sound &= ~saturated
    if metric == GAP:
        sound &= frame["gaps"] >= LEAST_GAPS
    logs = np.log(frame[metric].where(frame[metric] > 0).to_numpy(dtype=np.float64))
    values = np.where(endless, np.inf, np.where(sound, logs, np.nan))
    return frame.assign(value=values)[["lifetime", "arm", "block", "rate_per_s", "value"]]


def _at_moderate_load(manifest: RunManifest, trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean logarithm of a metric over the moderate rates, a row a lifetime and a column for each arm."""
    rows = values_at_moderate_load(manifest, trials, metric)
    table = rows.pivot_table(index="lifetime", columns="arm", values="value", aggfunc="mean")
    counts = rows.dropna().pivot_table(index="lifetime", columns="arm", values="value", aggfunc="count")
    wanted = {int(arm): len(manifest.rates_per_s[manifest.design.block(int(arm))]) for arm in table.columns}
    return table.where(counts.reindex_like(table) == pd.Series(wanted))
