"""From the rows of a run to the tables that figures and reports are drawn from.

``trials`` (one row per attempt) → ``points`` (one per arm and rate) → ``arms`` (λ*), ``ratios`` (REST ÷ gRPC)
and ``shares`` (how many trials may be believed). Times are in ms, rates per second, and every percentile
``x`` has a column ``x_bound``: true where the value is a lower bound. Nothing here measures or draws.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import MIN_REPLICATES, geometric_mean, hodges_lehmann, holm, spread
from infscale.analysis.queues import fits_table
from infscale.analysis.tables.distributions import distributions_table, timeline_table
from infscale.analysis.tables.saturation import INTERVAL, arms_table
from infscale.analysis.tables.trials import ARM, METRICS, POINT, comparable, trials_table, used
from infscale.errors import DataError
from infscale.records.components import PARTS
from infscale.records.gate import INVALID, SATURATED, VALID, Floats
from infscale.records.runs import COMPLETE, Run

# ---------------------------------------------------------------------------------------------- points


def points_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per (implementation, protocol, rate) of the grid.

    ``verdict`` is SATURATED if any usable replicate is, INVALID if none is usable, else VALID. INVALID
    replicates are left out of a point that has others, and so are VALID ones that never became steady (counted in
    ``unsteady``). Each percentile is the geometric mean over the ``replicates`` used, with ``_low`` and ``_high``
    (95 %), or a bound without an interval where the point is SATURATED or any replicate's value is censored; NaN where
    any replicate's is withheld. ``_spread`` is how much replicates differ (0.1: by about 10 %), ``_below_floor``
    whether any rests on fewer independent requests than an interval within a trial needs.

    Raises:
        DataError: the run was interrupted before the first trial of its grid.
    """
    grid = trials[trials["phase"] == "grid"]
    if grid.empty:
        raise DataError("no trial of the grid was finished: there is nothing to summarise")
    attempts = pd.crosstab([grid[key] for key in POINT], grid["verdict"]).reindex(
        columns=[VALID, SATURATED, INVALID], fill_value=0
    )
    rows = [dict(zip(POINT, key, strict=True)) | _point(group) for key, group in used(trials).groupby(POINT)]
    points = pd.DataFrame(rows)
    counts = attempts.rename(columns=lambda name: str(name).lower()).reset_index()
    return points.merge(counts, on=POINT, how="left", validate="one_to_one")


def _point(group: pd.DataFrame) -> dict[str, Any]:
    sound = group[group["verdict"] != INVALID]
    saturated = bool((sound["verdict"] == SATURATED).any())
    verdict = SATURATED if saturated else INVALID if sound.empty else VALID
    chosen = group if sound.empty else sound
    unsteady = int((~chosen["steady"]).sum())
    if 0 < unsteady < len(chosen):
        chosen = chosen[chosen["steady"]]
    row: dict[str, Any] = {
        "verdict": verdict,
        "replicates": len(chosen),
        "exploratory": geometric_mean(np.ones(len(chosen))).exploratory,
        "unsteady": unsteady,
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
        row |= _estimate(chosen, name, saturated)
    return row


def _throughput(chosen: pd.DataFrame) -> dict[str, float]:
    """95 % intervals of throughput and goodput over replicates (NaN where one of them is 0)."""
    row: dict[str, float] = {}
    for name in ("achieved_per_s", "goodput_per_s"):
        positive = (chosen[name] > 0).all()
        found = geometric_mean(chosen[name] if positive else [])
        row |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return row


def _estimate(chosen: pd.DataFrame, name: str, saturated: bool) -> dict[str, Any]:
    """One percentile of a point: value, interval, and whether it is a bound."""
    found = geometric_mean(chosen[name])
    bound = saturated or bool(chosen[f"{name}_bound"].any())
    low, high = (float("nan"), float("nan")) if bound else (found.low, found.high)
    row: dict[str, Any] = {name: found.value, f"{name}_low": low, f"{name}_high": high, f"{name}_bound": bound}
    row[f"{name}_note"] = _withheld(found.value, len(chosen), bound)
    row[f"{name}_spread"] = float("nan") if bound else spread(chosen[name])
    if f"{name}_below_floor" in chosen:
        row[f"{name}_below_floor"] = bool(chosen[f"{name}_below_floor"].any())
    return row


def _withheld(value: float, replicates: int, bound: bool) -> str:
    """Why a percentile has no interval; empty where it has one."""
    if np.isnan(value):
        return "too few requests, or never steady"
    if bound:
        return "a lower bound"
    return "" if replicates >= MIN_REPLICATES else f"{replicates} of at least {MIN_REPLICATES} replicates"


# ------------------------------------------------------------------------------------- saturation rates


def with_saturation(points: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """``points`` with the λ* columns of each row's arm."""
    return points.merge(
        arms[[*ARM, "bound", "saturation_per_s", "low_per_s", "high_per_s", *INTERVAL]], on=ARM, how="left"
    )


def shares_table(trials: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: the share of its grid trials below λ* that are VALID, and why the others are not.

    Every attempt counts. ``reasons`` names the gates with their counts, most frequent first.
    """
    grid = trials[trials["phase"] == "grid"].merge(arms[[*ARM, "saturation_per_s", "bound"]], on=ARM)
    inclusive = (grid["bound"] == "≥") & (grid["rate_per_s"] == grid["saturation_per_s"])
    below = grid[(grid["rate_per_s"] < grid["saturation_per_s"]) | inclusive | (grid["bound"] == "?")]
    rows = [dict(zip(ARM, key, strict=True)) | share_valid(group) for key, group in below.groupby(ARM)]
    counted = pd.DataFrame(rows, columns=[*ARM, "trials", "valid", "share", "reasons"])
    shares = arms[ARM].merge(counted, on=ARM, how="left")
    return shares.fillna({"trials": 0, "valid": 0, "reasons": ""}).astype({"trials": int, "valid": int})


def share_valid(trials: pd.DataFrame) -> dict[str, Any]:
    """How many of some trials are VALID, and the reasons of the others with their counts."""
    valid = int((trials["verdict"] == VALID).sum())
    reasons = Counter(word for text in trials.loc[trials["verdict"] != VALID, "reasons"] for word in text.split())
    told = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
    return {
        "trials": len(trials),
        "valid": valid,
        "share": valid / len(trials) if len(trials) else float("nan"),
        "reasons": told,
    }


# ---------------------------------------------------------------------------------------------- ratios


def ratios_table(
    trials: pd.DataFrame, name: str = "response_p95_ms", over: str = "rest", under: str = "grpc"
) -> pd.DataFrame:
    """One row per (implementation, rate): the ratio of two protocols' ``name``, paired by replicate.

    A replicate counts where both arms are VALID and both values are known, at a λ where neither ever was SATURATED.
    ``conclusion`` is the protocol with the larger value when the 95 % interval excludes 1, else "cannot conclude".
    ``p_holm`` corrects the test over all rows of this table. ``hodges_lehmann`` stands beside the ratio from six
    replicates, ``spread`` is how much the replicates' ratios differ.
    """
    frame, fit = used(trials), comparable(trials, name)
    keys = [key for key in POINT if key != "protocol"]
    wide = fit.pivot(index=[*keys, "replicate"], columns="protocol", values=name).reindex(columns=[over, under])
    every = frame.groupby(keys).size().index
    pairs = (wide[over] / wide[under]).dropna()
    found = {key: group.to_numpy() for key, group in pairs.groupby(level=keys)}
    rows = [dict(zip(keys, key, strict=True)) | _ratio(found.get(key, np.array([])), over, under) for key in every]
    table = pd.DataFrame(rows).assign(metric=name, over=over, under=under)
    return table.assign(p_holm=holm(table["p_value"]))


def _ratio(pairs: Floats, over: str, under: str) -> dict[str, Any]:
    interval = geometric_mean(pairs)
    conclusion = "cannot conclude"
    if interval.low > 1:
        conclusion = over
    elif interval.high < 1:
        conclusion = under
    return {
        "replicates": interval.replicates,
        "exploratory": interval.exploratory,
        "ratio": interval.value,
        "ratio_low": interval.low,
        "ratio_high": interval.high,
        "note": withheld_because(len(pairs)),
        "hodges_lehmann": hodges_lehmann(pairs),
        "spread": spread(pairs),
        "p_value": interval.p_value,
        "conclusion": conclusion,
    }


def withheld_because(pairs: int) -> str:
    """Why a ratio has no interval; empty where it has one."""
    if pairs == 0:
        return "no replicate in which both are VALID and steady, or one of them was SATURATED"
    return f"{pairs} of at least {MIN_REPLICATES} replicates" if pairs < MIN_REPLICATES else ""


def sensitivity_table(trials: pd.DataFrame, name: str = "response_p95_ms") -> pd.DataFrame:
    """How much an arm's fixed defaults (encoding, connections) decide: variant ÷ the grid's own arm, at one rate.

    One row per variant tried, paired by replicate where both are VALID. ``differs`` is true when the 95 % interval
    excludes 1. Empty when the run made no such check.
    """
    variants = ["encoding", "connections"]
    usable = trials[(trials["verdict"] == VALID) & ~trials[f"{name}_bound"].astype(bool) & np.isfinite(trials[name])]
    own = used(usable).set_index([*POINT, "replicate"])[name]
    rows = []
    for key, group in trials[trials["phase"] == "sensitivity"].groupby([*POINT, *variants], dropna=False):
        tried = usable.loc[usable.index.intersection(group.index)].set_index([*POINT, "replicate"])[name]
        found = geometric_mean((tried / own.reindex(tried.index)).dropna())
        differs = found.low > 1 or found.high < 1
        rows.append(
            dict(zip([*POINT, *variants], key, strict=True))
            | {"trials": len(group), "replicates": found.replicates, "ratio": found.value}
            | {"ratio_low": found.low, "ratio_high": found.high, "differs": differs}
        )
    columns = [*POINT, *variants, "trials", "replicates", "ratio", "ratio_low", "ratio_high", "differs"]
    return pd.DataFrame(rows, columns=columns)


def components_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Where the mean response time goes: ms by part, means over the VALID replicates whose server reported its times.

    One row per point of the grid; the parts add up to ``mean_response_ms``. Empty when no server reported any.
    """
    parts = [f"mean_{part}_ms" for part in (*PARTS, "response")]
    known = used(trials[(trials["verdict"] == VALID) & trials["mean_response_ms"].notna()])
    grouped = known.groupby(POINT, sort=False)
    return grouped[parts].mean().assign(replicates=grouped.size()).reset_index()


# ------------------------------------------------------------------------------------ distributions, files


def common_rates(points: pd.DataFrame) -> dict[str, float]:
    """For each implementation the largest rate at which all of its protocols are VALID (absent if none is)."""
    protocols = points.groupby("implementation")["protocol"].nunique()
    valid = points[points["verdict"] == VALID].groupby(["implementation", "rate_per_s"])["protocol"].nunique()
    counts = valid.reset_index(name="valid")
    common = counts[counts["valid"] == counts["implementation"].map(protocols)]
    largest = common.groupby("implementation")["rate_per_s"].max()
    return {str(name): float(rate) for name, rate in largest.to_dict().items()}


def summarise(run: Run, slo_ms: float = 100.0, names: Sequence[str] = METRICS) -> dict[str, pd.DataFrame]:
    """Every table of a run, by name; ``ratios`` holds one block of rows for each of ``names``."""
    trials = trials_table(run, slo_ms)
    _check_arms(run, trials)
    points, arms = points_table(trials), arms_table(trials)
    rates = common_rates(points)
    return {
        "trials": trials,
        "points": points,
        "arms": arms,
        "shares": shares_table(trials, arms),
        "ratios": pd.concat([ratios_table(trials, name) for name in names], ignore_index=True),
        "sensitivity": sensitivity_table(trials),
        "components": components_table(trials),
        "queues": fits_table(points, arms),
        "distributions": distributions_table(run, trials, points, rates),
        "timeline": timeline_table(run, trials, rates),
    }


def _check_arms(run: Run, trials: pd.DataFrame) -> None:
    """A complete run has trials of every arm, and something succeeded.

    Raises:
        DataError: an arm is empty, or every request failed.
    """
    grid = trials[trials["phase"] == "grid"]
    if run.manifest["status"] == COMPLETE and len(grid):
        found = set(zip(grid["framework"], grid["protocol"], strict=True))
        config = run.manifest["config"]
        empty = [f"{f} over {p}" for f in config["frameworks"] for p in config["protocols"] if (f, p) not in found]
        if empty:
            raise DataError(f"{run.folder}: no trial of {', '.join(empty)}, although the run is complete")
    if trials["scheduled"].sum() and (trials["failed"] == trials["scheduled"]).all():
        kinds = sorted({kind for errors in trials["errors"] for kind in json.loads(errors)})
        raise DataError(f"{run.folder}: every request failed ({', '.join(kinds)}): there is nothing to summarise")


def save_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as Parquet (to be read again) and CSV (to be looked at)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read what :func:`save_tables` wrote.

    Raises:
        DataError: nothing is there; the message says what to run.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no tables: run notebooks/30-summarise.ipynb for this run first")
    return {file.stem: pd.read_parquet(file) for file in files}
