"""One row for each arm and arrival rate: percentiles, rates and verdict over lifetimes."""

from collections import Counter

import numpy as np
import pandas as pd

from infscale.analysis.intervals import MIN_LIFETIMES, Interval, geometric_mean, spread
from infscale.analysis.tables.trials import METRICS, POINT, STREAM_METRICS, Row, identified, kept_up, metric, used
from infscale.errors import DataError
from infscale.experiment.design.design import PER_CORE, PER_MESSAGE
from infscale.records.components import PARTS
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID


def points_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (arm, rate) of the trials at set rates.

    ``verdict`` is INVALID if no lifetime is usable, SATURATED if at least half of the usable ones are, UNSTEADY if none
    of the others became steady, else VALID. ``valid``, ``unsteady``, ``saturated`` and ``invalid`` count every attempt.
    Each percentile is the geometric mean over the ``lifetimes`` that have the point's verdict, with ``_low`` and
    ``_high`` (95 %), or a bound without an interval where the point is SATURATED or a lifetime's value is censored; NaN
    where a lifetime's is withheld. ``_note`` says why. ``_spread`` is how much lifetimes differ (0.1: by about 10 %),
    ``_below_floor`` whether half of them or more rest on fewer independent requests than an interval within a trial
    needs. (The p99 response time is replaced by :func:`infscale.analysis.tables.distributions.with_p99`.)

    Raises:
        DataError: the run was interrupted before the first trial at a set rate.
    """
    grid = trials[trials["phase"] == "grid"]
    if grid.empty:
        raise DataError("no trial at a set rate was finished: there is nothing to summarise")
    attempts = pd.crosstab([grid[key] for key in POINT], grid["verdict"])
    counts = attempts.reindex(columns=[VALID, UNSTEADY, SATURATED, INVALID], fill_value=0).rename(columns=str.lower)
    rows = [{"arm": arm, "rate_per_s": rate, **_point(group)} for (arm, rate), group in used(trials).groupby(POINT)]
    points = pd.DataFrame(rows).merge(counts.reset_index(), on=POINT, how="left", validate="one_to_one")
    return identified(points, trials)


def _point(group: pd.DataFrame) -> Row:
    verdict = _verdict(group)
    chosen = group[group["verdict"] == verdict]
    row: Row = {
        "verdict": verdict,
        "lifetimes": len(chosen),
        "n": int(chosen["n"].sum()),
        "failed": int(chosen["failed"].sum()),
        **{name: float(chosen[name].mean()) for name in ("offered_per_s", "achieved_per_s", "goodput_per_s")},
        "slo_passed": int(chosen["slo_passed"].sum()),
        **_throughput(chosen),
        "engine_cpu_us_per_request": float(chosen["engine_cpu_us_per_request"].mean()),
        "lag_p50_ms": float(chosen["lag_p50_ms"].median()),
        "lag_p99_ms": float(chosen["lag_p99_ms"].max()),
        "dispersion_difference": float(chosen["dispersion_difference"].max()),
        "gaps_distance": float(chosen["gaps_distance"].max()),
        "response_mean_ms": geometric_mean(chosen["response_mean_ms"]).value,
    }
    for name in METRICS:
        row |= _estimate(chosen, name, verdict == SATURATED)
    return row | (_streams(chosen, verdict) if STREAM_METRICS[0] in chosen else {})


def _streams(chosen: pd.DataFrame, verdict: str) -> Row:
    """Return what the streams of a point brought: percentiles as of requests, and means over lifetimes.

    ``coalesced`` counts the lifetimes in which messages arrived together that were sent apart. The longest
    stall is that of all lifetimes. All is NaN of an arm whose replies are no streams.
    """
    row: Row = {}
    for name in STREAM_METRICS:
        row |= _estimate(chosen, name, verdict == SATURATED)
    for name in RATES_OF_MESSAGES:
        positive = bool((chosen[name] > 0).all())
        mean = geometric_mean(chosen[name] if positive else [])
        row |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return row | {
        "stall_ms": float(chosen["stall_ms"].max()),
        **{name: float(chosen[name].mean()) for name in ("messages_per_read", "messages_together", "coalesced_share")},
        "coalesced": int(chosen["coalesced"].eq(True).sum()),
    }


RATES_OF_MESSAGES = ("messages_per_s", PER_CORE, PER_MESSAGE)
"""Columns of streams that are no percentiles, and have intervals."""


def _verdict(group: pd.DataFrame) -> str:
    if not kept_up(group).all():
        return SATURATED
    there = set(group["verdict"])
    return next(verdict for verdict in (VALID, UNSTEADY, INVALID) if verdict in there)


def _throughput(chosen: pd.DataFrame) -> Row:
    """Return 95 % intervals of throughput and goodput over lifetimes (NaN where one of them is 0)."""
    row: Row = {}
    for name in ("achieved_per_s", "goodput_per_s"):
        positive = (chosen[name] > 0).all()
        mean = geometric_mean(chosen[name] if positive else [])
        row |= {f"{name}_low": mean.low, f"{name}_high": mean.high}
    return row


def _estimate(chosen: pd.DataFrame, name: str, saturated: bool) -> Row:
    """Return one percentile of a point: value, interval, and whether it is a bound."""
    nan, zero = float("nan"), bool((chosen[name] == 0).any())  # gaps of messages that came in one read
    mean = Interval(float(chosen[name].mean()), nan, nan, len(chosen), nan) if zero else geometric_mean(chosen[name])
    bound = saturated or bool(chosen[f"{name}_bound"].any())
    low, high = (nan, nan) if bound else (mean.low, mean.high)
    row: Row = {name: mean.value, f"{name}_low": low, f"{name}_high": high, f"{name}_bound": bound}
    row[f"{name}_note"] = _withheld(mean.value, len(chosen), bound) + _floor(chosen, name, mean.value)
    if (name in REQUESTS_P99 and chosen["n"].sum() < P99_REQUESTS) or (
        name == GAPS_P99 and chosen["gaps"].sum() < P99_REQUESTS
    ):
        row |= {name: nan, f"{name}_low": nan, f"{name}_high": nan, f"{name}_bound": False, f"{name}_note": FEW}
        bound = True
    row[f"{name}_spread"] = float("nan") if bound or zero else spread(chosen[name])
    if f"{name}_below_floor" in chosen:
        row[f"{name}_below_floor"] = bool(chosen[f"{name}_below_floor"].mean() >= 0.5)
    return row


P99_REQUESTS, P99_INDEPENDENT = 1000, 500
"""Fewest requests of a point, and of them independent (n_eff), for a p99: of fewer it is biased downwards."""

REQUESTS_P99 = tuple(metric(name, "p99") for name in ("roundtrip", "first_message", "first_message_from_send"))
GAPS_P99 = metric("gap", "p99")
"""The p99 of requests that is not replaced by one of all lifetimes together, and that of gaps."""

FEW = f"fewer than {P99_REQUESTS:,} requests in all lifetimes, or fewer than {P99_INDEPENDENT} independent ones"
"""Why a p99 is withheld."""


def _withheld(value: float, lifetimes: int, bound: bool) -> str:
    """Return why a percentile has no interval; empty where it has one."""
    if np.isnan(value):
        return "too few requests, or never steady"
    if bound:
        return "a lower bound"
    return "" if lifetimes >= MIN_LIFETIMES else f"only {lifetimes} lifetimes; an interval needs {MIN_LIFETIMES}"


def _floor(chosen: pd.DataFrame, name: str, value: float) -> str:
    """Return in brackets how many of LoadGen's queries a withheld percentile needs; empty for other clients."""
    notes = {part for text in chosen.get("floor_note", ()) for part in text.split("; ")}
    needed = [part for part in sorted(notes) if np.isnan(value) and f"_{part.partition(' ')[0]}_" in name]
    return f" ({needed[0]} in a trial, by LoadGen's bound)" if needed else ""


def shares_table(trials: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: the share of its trials at set rates below λ* that are VALID, and why others are not.

    Every attempt counts. ``reasons`` names the gates with their counts, most frequent first.
    """
    grid = trials[trials["phase"] == "grid"].merge(arms[["arm", "saturation_per_s", "bound"]], on="arm")
    below = grid[(grid["rate_per_s"] < grid["saturation_per_s"]) | grid["bound"].isin(("≥", "?"))]
    rows = [{"arm": arm, **share_valid(group)} for arm, group in below.groupby("arm")]
    counted = pd.DataFrame(rows, columns=["arm", "trials", "valid", "share", "reasons"]).astype({"arm": int})
    shares = arms[["arm"]].merge(counted, on="arm", how="left")
    shares = shares.fillna({"trials": 0, "valid": 0, "reasons": ""}).astype({"trials": int, "valid": int})
    return identified(shares, trials)


def share_valid(trials: pd.DataFrame) -> Row:
    """Return how many of some trials are VALID, and the reasons of the others with their counts."""
    valid = int((trials["verdict"] == VALID).sum())
    reasons = Counter(name for text in trials.loc[trials["verdict"] != VALID, "reasons"] for name in text.split())
    return {
        "trials": len(trials),
        "valid": valid,
        "share": valid / len(trials) if len(trials) else float("nan"),
        "reasons": ", ".join(f"{name} {count}" for name, count in reasons.most_common()),
    }


def components_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return where the mean response time goes: ms by part, over VALID lifetimes whose server reported its times.

    One row per (arm, rate); the parts add up to ``mean_response_ms``. Empty when no server reported any.
    """
    parts = [f"mean_{part}_ms" for part in (*PARTS, "response")]
    known = used(trials[(trials["verdict"] == VALID) & trials["mean_response_ms"].notna()])
    grouped = known.groupby(POINT)
    return identified(grouped[parts].mean().assign(lifetimes=grouped.size()).reset_index(), trials)
