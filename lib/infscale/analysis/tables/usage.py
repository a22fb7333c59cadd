"""What each group of processes used: by point, and at capacity."""

from collections.abc import Mapping

import pandas as pd

from infscale.analysis.intervals import geometric_mean
from infscale.analysis.tables.trials import POINT, Row, identified
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.manifest import GroupUsage, TrialManifest, nan_if_none
from infscale.records.runs import Run
from infscale.records.usage import CLIENT, HOST

PHASES = ("grid", "search")
CPU = "cpu_us_per_request"
MEANS = ["achieved_per_s", "user_s_per_s", "system_s_per_s", "rss_bytes", "switches_per_s", CPU]
USAGE_COLUMNS = ["rate_per_s", "group", *MEANS, *(f"{CPU}_{end}" for end in ("low", "high")), "lifetimes", "verdict"]
"""The columns of :func:`usage_table` beside those that identify the arm."""


def usage_table(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each group of processes used: means over lifetimes, one row per arm, λ and group.

    Of the trials at set rates and of the search for λ*, those that were watched and are not INVALID. Columns:
    ``achieved_per_s``: successes that finished within the arrivals, per second; ``group``; ``user_s_per_s`` and
    ``system_s_per_s``: CPU seconds per second, so cores; ``rss_bytes``: peak, shared pages counted for each process;
    ``switches_per_s``: context switches of both kinds; ``cpu_us_per_request``: CPU of the group ÷ those successes, so
    that a request that failed is paid for by those that did not (NaN without any), with ``_low`` and ``_high`` (95 %, t
    on the logarithm, one value a lifetime); ``lifetimes``; ``verdict``:
    SATURATED where at least half of the lifetimes were.

    Args:
        run: whose manifests hold the usage.
        trials: of :func:`infscale.analysis.tables.trials.trials_table`.
    """
    sound = trials[trials["phase"].isin(PHASES) & (trials["verdict"] != INVALID)].set_index("trial_id")
    rows = [
        row
        for trial in run.trials
        if trial.manifest.trial_id in sound.index
        for row in _rows(trial.manifest, float(sound["finished_per_s"][trial.manifest.trial_id]))
    ]
    table = pd.DataFrame(rows, columns=["trial_id", "arm", "rate_per_s", "lifetime", "group", *MEANS])
    table = table.assign(saturated=table["trial_id"].map(sound["verdict"]) == SATURATED)
    groups = table.astype({"arm": int}).groupby([*POINT, "group"], sort=False)
    means = groups[MEANS].mean().assign(lifetimes=groups["lifetime"].nunique())
    verdict = (groups["saturated"].mean() >= 0.5).map({True: SATURATED, False: VALID})
    costs = _cpu(table)
    means = means.drop(columns=CPU).assign(verdict=verdict).join(costs)
    return identified(means[USAGE_COLUMNS[2:]].reset_index(), trials)


def _cpu(table: pd.DataFrame) -> pd.DataFrame:
    """Return the CPU of a request by arm, λ and group: the geometric mean over lifetimes, and its interval.

    Where a lifetime used no CPU that was seen, or had no success: the mean, without an interval.
    """
    each = table.groupby([*POINT, "group", "lifetime"], sort=False)[CPU].mean()
    groups = each.groupby([*POINT, "group"], sort=False)
    means = {key: geometric_mean(values if (values > 0).all() else []) for key, values in groups}
    rows = [(mean.value, mean.low, mean.high) for mean in means.values()]
    index = pd.MultiIndex.from_tuples(means, names=[*POINT, "group"])
    costs = pd.DataFrame(rows, index=index, columns=[CPU, f"{CPU}_low", f"{CPU}_high"], dtype=float)
    return costs.fillna({CPU: groups.mean()})


def _rows(manifest: TrialManifest, achieved_per_s: float) -> list[Row]:
    common = {
        "trial_id": manifest.trial_id,
        "arm": manifest.arm_number,
        "rate_per_s": manifest.rate_per_s,
        "lifetime": manifest.lifetime,
        "achieved_per_s": achieved_per_s,
    }
    return [
        {**common, "group": group, **_used(used, achieved_per_s)}
        for group, used in manifest.usage.items()
        if group != HOST
    ]


def _used(used: GroupUsage, achieved_per_s: float) -> Row:
    user, system = (nan_if_none(seconds) / used.seconds for seconds in (used.cpu_user_s, used.cpu_system_s))
    return {
        "user_s_per_s": user,
        "system_s_per_s": system,
        "rss_bytes": nan_if_none(used.rss_peak_bytes),
        "switches_per_s": (used.voluntary_per_s or 0.0) + (used.involuntary_per_s or 0.0),
        "cpu_us_per_request": 1e6 * (user + system) / achieved_per_s if achieved_per_s else float("nan"),
    }


def at_capacity(usage: pd.DataFrame, capacity: Mapping[int, float]) -> pd.DataFrame:
    """Return what a deployment (every group but the client) uses at its saturation rate λ*, one row per arm.

    The input of :func:`infscale.analysis.cost.table`: columns ``arm``; ``cpu_us_per_request`` and ``rss_peak_bytes`` at
    the highest rate that is VALID; ``capacity_per_s``, λ*; ``cores``, the CPU of a request there × λ*.

    Args:
        usage: of :func:`usage_table`.
        capacity: λ* by arm, requests/s; NaN where it is not known.
    """
    served = usage[(usage["group"] != CLIENT) & (usage["verdict"] == VALID)]
    top = served[served["rate_per_s"] == served.groupby("arm")["rate_per_s"].transform("max")]
    sums = top.groupby("arm")[["cpu_us_per_request", "rss_bytes"]].sum().reset_index()
    table = sums.rename(columns={"rss_bytes": "rss_peak_bytes"}).assign(capacity_per_s=sums["arm"].map(capacity))
    return table.assign(cores=table["cpu_us_per_request"] * table["capacity_per_s"] / 1e6)
