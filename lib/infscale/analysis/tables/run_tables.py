"""All tables of a run: what figures, reports and answers are made from."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from infscale.analysis.tables.contrasts import contrasts_table
from infscale.analysis.tables.distributions import distributions_table, gaps_table, pools, with_p99
from infscale.analysis.tables.fits import fits_table
from infscale.analysis.tables.points import components_table, points_table, shares_table
from infscale.analysis.tables.ratios import ratios_table, sensitivity_table, with_shares
from infscale.analysis.tables.saturation import arms_table
from infscale.analysis.tables.trials import IDENTITY, identified, trials_table
from infscale.analysis.tables.usage import usage_table
from infscale.errors import DataError
from infscale.experiment.design.design import FIRST, GAP, P95, PER_CORE, PER_MESSAGE
from infscale.records.manifest import RunManifest, nan_if_none
from infscale.records.runs import Run

SHOWN = ["label", "bytes_out", "bytes_in", "encode_us", "decode_us", "saturation_per_s", P95, "verdict"]
"""The columns of ``summary`` that notebooks show."""

SHOWN_OF_STREAMS = ["label", FIRST, GAP, "stall_ms", "messages_per_read", PER_CORE, PER_MESSAGE, "saturation_per_s"]
"""Those that the notebook of streams shows."""


@dataclass(frozen=True)
class Tables:
    """The tables of a run. Each has :data:`infscale.analysis.tables.trials.IDENTITY` as its first columns.

    Attributes:
        trials: one row per trial but those of the pilot.
        points: one row per arm and rate.
        arms: one row per arm: λ*.
        contrasts: one row per contrast that was named before the run: what the run claims.
        ratios: one row per compared pair of arms and rate: p95 ratios that describe, and claim nothing.
        summary: one row per compared arm in the order of the design: bytes, cost of encoding, CPU by group of
            processes, λ*, and the percentiles at the larger rate of moderate load.
        usage: one row per arm, rate and group of processes.
        shares: one row per arm: how many of its trials below λ* are VALID.
        sensitivity: one row per arm of the sensitivity check.
        components: one row per arm and rate: the parts of the mean response time.
        queues: one row per arm and queueing model.
        distributions: response times by level, at every rate at which an arm is VALID.
        gaps: gaps between the messages of streams by level, at the larger rate of moderate load; empty without streams.
    """

    trials: pd.DataFrame
    points: pd.DataFrame
    arms: pd.DataFrame
    contrasts: pd.DataFrame
    ratios: pd.DataFrame
    summary: pd.DataFrame
    usage: pd.DataFrame
    shares: pd.DataFrame
    sensitivity: pd.DataFrame
    components: pd.DataFrame
    queues: pd.DataFrame
    distributions: pd.DataFrame
    gaps: pd.DataFrame

    def of_loop(self, *, closed: bool) -> "Tables":
        """Return the tables with the rows of closed loops alone, or of open ones."""
        return Tables(**{name: table[table["closed"].astype(bool) == closed] for name, table in self.by_name().items()})

    def by_name(self) -> dict[str, pd.DataFrame]:
        """Return the tables by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def tabulate(run: Run, slo_ms: float = 100.0) -> Tables:
    """Return all tables of a run.

    Args:
        run: a stored run, complete or interrupted.
        slo_ms: the limit of response time that goodput counts, ms.

    Raises:
        DataError: no trial at a set rate was finished, a complete run has none of an arm, or every request failed.
    """
    every = trials_table(run, slo_ms)
    _check_arms(run, every)
    return from_trials(run, every)


def from_trials(run: Run, every: pd.DataFrame) -> Tables:
    """Return all tables of a run, given the one of its trials."""
    design, rates = run.manifest.design, moderate_rates(run.manifest)
    trials = every[every["phase"] != "pilot"].reset_index(drop=True)  # its trials are short, on a server that warms up
    points, arms = points_table(trials), arms_table(trials)
    pooled = pools(run, trials, points)
    points = with_p99(points, trials, pooled)
    usage = usage_table(run, trials)
    return Tables(
        trials=trials,
        points=points,
        arms=arms,
        contrasts=contrasts_table(run.manifest, trials),
        ratios=with_shares(ratios_table(trials, design.contrasts), arms),
        summary=_summary(run, points, arms, trials, usage, rates),
        usage=usage,
        shares=shares_table(trials, arms),
        sensitivity=sensitivity_table(trials, design),
        components=components_table(trials),
        queues=fits_table(points, arms),
        distributions=distributions_table(pooled, points, rates),
        gaps=gaps_table(run, trials, points, rates),
    )


def moderate_rates(manifest: RunManifest) -> dict[int, float]:
    """Return by block the larger rate of moderate load, at which percentiles of arms are shown side by side."""
    return {block: rates[-1] for block, rates in manifest.rates_per_s.items()}


def _summary(
    run: Run,
    points: pd.DataFrame,
    arms: pd.DataFrame,
    trials: pd.DataFrame,
    usage: pd.DataFrame,
    rates: Mapping[int, float],
) -> pd.DataFrame:
    """Return one row per compared arm that was measured, in the order of the design; see :class:`Tables`."""
    pilots = run.manifest.pilot
    codec = [(arm, nan_if_none(pilots[arm].encode_us), nan_if_none(pilots[arm].decode_us)) for arm in run.measured]
    table = pd.DataFrame(codec, columns=["arm", "encode_us", "decode_us"])
    grid = trials[(trials["phase"] == "grid") & (trials["failed"] < trials["scheduled"])]
    costs = grid[_at(grid, rates)].groupby("arm")[["bytes_out", "bytes_in", "hit_ratio"]].mean()
    cpu = _cpu(usage[_at(usage, rates)])
    common = points[_at(points, rates)].drop(columns=[name for name in IDENTITY if name != "arm"])
    counts = ["valid", "unsteady", "invalid", "saturated"]  # the points have their own
    whole = arms.drop(columns=[*IDENTITY, *counts]).assign(arm=arms["arm"])
    for other in (common, whole, costs.reset_index(), cpu.reset_index()):
        table = table.merge(other, on="arm", how="left")
    return identified(table, trials)


def _cpu(usage: pd.DataFrame) -> pd.DataFrame:
    """Return the CPU of a request by arm: ``cpu_us_<group>`` with ``_low`` and ``_high``, a row for each arm."""
    tables = []
    for end in ("", "_low", "_high"):
        values = usage.pivot(index="arm", columns="group", values=f"cpu_us_per_request{end}")
        tables.append(values.add_prefix("cpu_us_").add_suffix(end))
    return pd.concat(tables, axis=1)


def _at(table: pd.DataFrame, rates: Mapping[int, float]) -> "pd.Series[bool]":
    """Return which rows lie at the rate at which the arms of their block are compared."""
    return table["rate_per_s"] == table["block"].map(dict(rates))


def _check_arms(run: Run, trials: pd.DataFrame) -> None:
    """Raise DataError where a complete run lacks every trial of an arm, or every request of a run failed."""
    manifest = run.manifest
    if manifest.status == "complete":
        left_out = {*manifest.skipped, *manifest.lost, *trials.loc[trials["phase"] == "grid", "arm"]}
        empty = [run.labels[arm] for arm in range(len(manifest.design.arms)) if arm not in left_out]
        if empty:
            raise DataError(f"{run.folder}: no trial of {'; '.join(empty)}, although the run is complete")
    if trials["scheduled"].sum() and (trials["failed"] == trials["scheduled"]).all():
        kinds = sorted({kind for errors in trials["errors"] for kind in json.loads(errors)})
        raise DataError(f"{run.folder}: every request failed ({', '.join(kinds)}): there is nothing to summarise")


def save_tables(tables: Tables, folder: Path) -> None:
    """Write each table as Parquet (to be read again) and CSV (to be looked at)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.by_name().items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def load_tables(folder: Path) -> Tables:
    """Return what :func:`save_tables` wrote.

    Raises:
        DataError: a table is not there; the message says what to run.
    """
    names = [field.name for field in dataclasses.fields(Tables)]
    missing = [name for name in names if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks the tables {', '.join(missing)}: run notebooks/30-summarise.ipynb for this run first"
        )
    return Tables(**{name: pd.read_parquet(folder / f"{name}.parquet") for name in names})
