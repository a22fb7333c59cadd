"""From the rows of a run to the tables that figures and reports are drawn from.

``trials`` (one row per attempt) → ``points`` (one per arm and rate) → ``arms`` (λ*), ``ratios`` (REST ÷ gRPC)
and ``shares`` (how many trials may be believed). Times are in ms, rates per second, and every percentile
``x`` has a column ``x_bound``: true where the value is a lower bound. Nothing here measures or draws.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.components import PARTS
from infscale.errors import DataError
from infscale.estimates import Interval, geometric_mean, holm
from infscale.runs import Run
from infscale.trial_table import ARM, METRICS, POINT, distributions_table, trials_table, used
from infscale.validity import INVALID, SATURATED, VALID, Floats

# ---------------------------------------------------------------------------------------------- points


def points_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per (implementation, protocol, rate) of the grid.

    ``verdict`` is SATURATED if any usable replicate is, INVALID if none is usable, else VALID. INVALID
    replicates are left out of a point that has others. Each percentile is the geometric mean over the
    ``replicates`` used, with ``_low`` and ``_high`` (95 %), or a bound without an interval where the point is
    SATURATED or any replicate's value is censored; NaN where any replicate's is withheld.

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
    row: dict[str, Any] = {
        "verdict": verdict,
        "replicates": len(chosen),
        "exploratory": geometric_mean(np.ones(len(chosen))).exploratory,
        "n": int(chosen["n"].sum()),
        "failed": int(chosen["failed"].sum()),
        **{name: float(chosen[name].mean()) for name in ("offered_per_s", "achieved_per_s", "goodput_per_s")},
        "engine_cpu_us_per_request": float(chosen["engine_cpu_us_per_request"].mean()),
        "lag_p50_ms": float(chosen["lag_p50_ms"].median()),
        "lag_p99_ms": float(chosen["lag_p99_ms"].max()),
    }
    for name in METRICS:
        row |= _estimate(chosen, name, saturated)
    return row


def _estimate(chosen: pd.DataFrame, name: str, saturated: bool) -> dict[str, Any]:
    """One percentile of a point: value, interval, and whether it is a bound."""
    found = geometric_mean(chosen[name])
    bound = saturated or bool(chosen[f"{name}_bound"].any())
    low, high = (float("nan"), float("nan")) if bound else (found.low, found.high)
    return {name: found.value, f"{name}_low": low, f"{name}_high": high, f"{name}_bound": bound}


# ------------------------------------------------------------------------------------- saturation rates


def arms_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: the saturation rate λ* and the bracket that it lies in.

    λ* is where a step from VALID to SATURATED contradicts the fewest verdicts of pilot and grid (one false alarm,
    or one lucky replicate, then moves nothing). The bracket runs from the last rate before the step (``low_per_s``)
    to the first one after it (``high_per_s``), over all steps that do equally well; ``saturation_per_s`` is its
    geometric mean, ``contradictions`` the verdicts that disagree. ``bound`` is "≥" when the step lies above all rates
    (the value is then the largest), "<" when it lies below all, "?" when no trial could be used. From
    ``settled_per_s`` on nothing was VALID any more (NaN if the largest rate was); two arms are told apart beyond it.
    """
    own = trials[trials["phase"].isin(("pilot", "grid"))]  # the sensitivity check varies what an arm fixes
    rows = [dict(zip(ARM, key, strict=True)) | _bracket(group) for key, group in own.groupby(ARM)]
    return pd.DataFrame(rows)


def _bracket(group: pd.DataFrame) -> dict[str, Any]:
    valid = group.loc[group["verdict"] == VALID, "rate_per_s"]
    saturated = group.loc[group["verdict"] == SATURATED, "rate_per_s"]
    low, high, contradictions = _step(valid.to_numpy(dtype=float), saturated.to_numpy(dtype=float))
    bound, value = "", float(np.sqrt(low * high))
    if np.isnan(value):
        bound, value = ("<", high) if np.isnan(low) else ("≥", low)
    return {
        "saturation_per_s": value,
        "low_per_s": low,
        "high_per_s": high,
        "contradictions": contradictions,
        "settled_per_s": float(saturated[~(saturated <= valid.max())].min()),
        "bound": "?" if np.isnan(value) else bound,
        "trials": len(group),
        "valid": len(valid),
        "saturated": len(saturated),
        "invalid": int((group["verdict"] == INVALID).sum()),
    }


def _step(valid: Floats, saturated: Floats) -> tuple[float, float, int]:
    """Rates on both sides of the step that contradicts the fewest verdicts (NaN: none on that side), and how many."""
    rates = np.unique(np.concatenate([valid, saturated]))
    cuts = np.arange(len(rates) + 1)  # cut k: the rates before index k keep up
    ends = np.append(rates, np.inf)
    wrong = np.array([(saturated < end).sum() + (valid >= end).sum() for end in ends])
    best = cuts[wrong == wrong.min()]
    low = float(rates[best[0] - 1]) if best[0] > 0 else float("nan")
    high = float(rates[best[-1]]) if best[-1] < len(rates) else float("nan")
    return low, high, int(wrong.min())


def with_saturation(points: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """``points`` with the λ* columns of each row's arm."""
    return points.merge(arms[[*ARM, "bound", "saturation_per_s", "low_per_s", "high_per_s"]], on=ARM, how="left")


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

    A replicate counts where both arms are VALID and both values are known. ``conclusion`` is the protocol with
    the larger value when the 95 % interval excludes 1, else "cannot conclude". ``p_holm`` corrects the test over
    all rows of this table.
    """
    frame = used(trials)
    fit = frame[(frame["verdict"] == VALID) & ~frame[f"{name}_bound"].astype(bool) & np.isfinite(frame[name])]
    keys = [key for key in POINT if key != "protocol"]
    wide = fit.pivot(index=[*keys, "replicate"], columns="protocol", values=name).reindex(columns=[over, under])
    every = frame.groupby(keys).size().index
    pairs = (wide[over] / wide[under]).dropna()
    found = {key: geometric_mean(group) for key, group in pairs.groupby(level=keys)}
    rows = [
        dict(zip(keys, key, strict=True)) | _ratio(found.get(key, geometric_mean([])), over, under) for key in every
    ]
    table = pd.DataFrame(rows).assign(metric=name, over=over, under=under)
    return table.assign(p_holm=holm(table["p_value"]))


def _ratio(interval: Interval, over: str, under: str) -> dict[str, Any]:
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
        "p_value": interval.p_value,
        "conclusion": conclusion,
    }


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
    points, arms = points_table(trials), arms_table(trials)
    return {
        "trials": trials,
        "points": points,
        "arms": arms,
        "shares": shares_table(trials, arms),
        "ratios": pd.concat([ratios_table(trials, name) for name in names], ignore_index=True),
        "sensitivity": sensitivity_table(trials),
        "components": components_table(trials),
        "distributions": distributions_table(run, trials, common_rates(points)),
    }


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
