"""Percentiles of any number of rows, in bounded memory: exact from rows, within 1 µs from counts that can be added up.

Rows are read three times. First they are counted in bins of 1 µs by trial: that says in which bin each percentile lies.
Then the rows of these bins alone are ordered, so that percentiles are exact. Last, the share of the requests at or
below each percentile is counted in consecutive blocks of the trial, which says how uncertain it is.

Counts can be stored, and be added to others. They give percentiles within 1 µs, and no intervals: which requests
followed one another is lost.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from infscale.analysis.merging import scans
from infscale.analysis.merging.blocks import uncertainty
from infscale.errors import DataError
from infscale.records.runs import load_run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LEVELS = (0.5, 0.95, 0.99, 0.999)
"""The percentiles, as shares."""

ONLY_COUNTS = "counts do not say which requests followed one another"


@dataclass(frozen=True)
class Percentile:
    """A percentile of the response time of one trial.

    Attributes:
        level: as a share, such as 0.99.
        value_ms: the response time of that rank, ms; from counts the upper end of its bin, at most 1 µs too long.
        bound: whether that request never succeeded, so that the percentile exceeds ``value_ms``: what it had waited for
            when it timed out, ∞ of any other failure.
        low_ms, high_ms: its 95 % interval, ms, rounded outward to 1 µs; NaN where an end is not known, ∞ where the
            request of that rank did not succeed.
        n_eff: how many independent requests the trial's are worth for this percentile; NaN where not known.
        why: why there is no interval; "" where there is one.
    """

    level: float
    value_ms: float
    bound: bool
    low_ms: float
    high_ms: float
    n_eff: float
    why: str


@dataclass(frozen=True)
class Summary:
    """What the rows of one trial say; ``exact`` is False where some of them were known only by their counts."""

    trial_id: str
    requests: int
    timeouts: int
    failed: int
    exact: bool
    percentiles: tuple[Percentile, ...]


def files_of(place: Path) -> list[Path]:
    """Return the files of rows of a run, given its folder; of anything else itself.

    Raises:
        DataError: a folder is no run, or its records are damaged.
    """
    return sorted({trial.path for trial in load_run(place).trials}) if place.is_dir() else [place]


def summarise(files: Sequence[Path], *, warmup_s: float = 0.0, counts: Path | None = None) -> list[Summary]:
    """Return the percentiles of the response time, from the scheduled time, of every trial in some files.

    Rows of one trial may lie in several files, as those of a load's shards do. All requests count, a timeout above
    every success and any other failure above every timeout.

    Args:
        files: Parquet files of rows (``infscale load --out``, a run's ``samples.parquet``) or of counts.
        warmup_s: rows that were scheduled earlier are left out, s.
        counts: file to which the counts are written.

    Raises:
        DataError: a file is absent, no Parquet file, lacks a column, or has rows twice.
        ConfigError: a file is given twice, or counts with a warm-up.
        MissingError: DuckDB is not installed.
    """
    with scans.connected() as db:
        exact = scans.open_files(db, files, round(warmup_s * 1e9))
        trials = scans.count(db)
        _check(trials, files)
        if counts is not None:
            scans.store(db, counts)
        levels = pd.DataFrame({"level": LEVELS}).merge(trials[["trial_id", "requests"]], how="cross")
        found = scans.places(db, levels.assign(rank=_rank(levels["requests"], levels["level"])))
        if exact:
            found = _with_intervals(db, trials, scans.exact(db, found))
        else:
            upper = (found["us"] + 1) * 1000
            found = found.assign(ns=upper, low_ms=math.nan, high_ms=math.nan, n_eff=math.nan, why=ONLY_COUNTS)
    by_trial = dict(list(found.sort_values("level").groupby("trial_id")))
    return [
        Summary(
            str(trial["trial_id"]),
            int(trial["requests"]),
            int(trial["timeouts"]),
            int(trial["failed"]),
            exact,
            tuple(_percentile(row, trial["longest_us"]) for row in by_trial[trial["trial_id"]].to_dict("records")),
        )
        for trial in trials.to_dict("records")
    ]


def _rank(requests: "pd.Series[int]", levels: "pd.Series[float]") -> "pd.Series[int]":
    """Return the rank ⌈np⌉ of each level, above 0, among n requests."""
    exact = (requests * levels - 1e-9).to_numpy(dtype=np.float64)
    return pd.Series(np.maximum(np.ceil(exact), 1), requests.index).astype("int64")


def _check(trials: pd.DataFrame, files: Sequence[Path]) -> None:
    """Raise DataError where there is nothing to summarise, or what is there contradicts itself."""
    if trials.empty:
        raise DataError(f"no request is in {', '.join(map(str, files))} after the warm-up")
    if (early := trials["least_ns"] < 0).any():
        name = trials.loc[early, "trial_id"].iloc[0]
        raise DataError(f"the trial {name} has a request that ended before it was scheduled")
    if (twice := trials["rows"] > trials["span"]).any():
        name = trials.loc[twice, "trial_id"].iloc[0]
        raise DataError(
            f"the trial {name} has rows twice: a sequence number is that of one request; give each row once"
        )


def _with_intervals(db: "DuckDBPyConnection", trials: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Return percentiles with ``low_ms``, ``high_ms``, ``n_eff`` and ``why``, from blocks of each trial."""
    limits = found.pivot(index="trial_id", columns="level", values="ns")[list(LEVELS)]
    limits.columns = pd.Index([f"q_{k}" for k in range(len(LEVELS))])
    shares = scans.blocks(db, trials.merge(limits.reset_index(), on="trial_id"), len(LEVELS)).sort_values("block")
    known = [
        {"trial_id": trial, "level": level, **asdict(uncertainty(own["requests"], own[f"within_{k}"]))}
        for trial, own in shares.groupby("trial_id")
        for k, level in enumerate(LEVELS)
    ]
    found = found.merge(pd.DataFrame(known), on=["trial_id", "level"])
    for end, sign in (("low_ms", -1), ("high_ms", 1)):
        at = found["level"] + sign * found["half"]
        inside = (at > 0) & (at < 1)
        asked = found.loc[inside, ["trial_id", "level"]]
        there = scans.places(db, asked.assign(rank=_rank(found.loc[inside, "requests"], at[inside])))
        ms = (there["us"] + (sign > 0)) / 1000
        ends = there[["trial_id", "level"]].assign(**{end: ms.where(there["outcome"] == 0, math.inf)})
        found = found.merge(ends, on=["trial_id", "level"], how="left")
    beyond = found[["low_ms", "high_ms"]].isna().any(axis=1) & (found["why"] == "")
    return found.assign(why=found["why"].mask(beyond, "too few independent requests for both ends"))


def _percentile(row: Mapping[Hashable, Any], longest_us: float) -> Percentile:
    """Return one row of what was found as a record."""
    outcome, nan = row["outcome"], math.nan
    if outcome == 0:
        interval = (float(row["low_ms"]), float(row["high_ms"]), float(row["n_eff"]), str(row["why"]))
        return Percentile(row["level"], row["ns"] / 1e6, False, *interval)
    waited = max(row["us"], longest_us if longest_us > 0 else 0) / 1000 if outcome == 1 else math.inf
    return Percentile(row["level"], waited, True, nan, nan, nan, "the request of that rank did not succeed")
