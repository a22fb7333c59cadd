"""From a run's manifests to what each group of processes used: by trial, by point, and at capacity."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from infscale.records.gate import INVALID, VALID
from infscale.records.runs import Run, Trial

HOST = "host"
PHASES = ("grid", "bisection")
KEYS = ["label", "framework", "implementation", "protocol", "rate_per_s", "group"]


def trials(run: Run) -> pd.DataFrame:
    """One row per group of processes and trial (of the grid or the search for λ*) that was watched and is not INVALID.

    Columns: ``label`` (of the case or implementation), ``framework``, ``implementation``, ``protocol``,
    ``rate_per_s`` (λ), ``replicate``, ``verdict`` (as stored); ``achieved_per_s``: successes that finished within
    the arrivals, per second; ``group``; ``user_s_per_s`` and ``system_s_per_s``: CPU seconds per second, so cores;
    ``rss_bytes``: peak, shared pages counted for each process; ``switches_per_s``: context switches of both kinds;
    ``cpu_us_per_request``: CPU of the group ÷ those successes, so that a request that failed is paid for by those that
    did not (NaN without any).
    """
    rows = [row for trial in run.trials if trial.manifest["phase"] in PHASES for row in _rows(run, trial)]
    return pd.DataFrame(rows)


def _rows(run: Run, trial: Trial) -> list[dict[str, Any]]:
    manifest = trial.manifest
    verdict = (manifest.get("verdict") or {}).get("verdict", "")
    if verdict == INVALID or not manifest.get("usage"):
        return []
    achieved = _achieved(trial)
    copied = ("framework", "implementation", "protocol", "rate_per_s", "replicate")
    common = {
        "label": run.label_of(manifest),
        **{key: manifest[key] for key in copied},
        "verdict": verdict,
        "achieved_per_s": achieved,
    }
    return [common | _used(group, used, achieved) for group, used in manifest["usage"].items() if group != HOST]


def _achieved(trial: Trial) -> float:
    rows, seconds = trial.samples(["done_ns", "status"]), trial.manifest["duration_s"]
    return float(((rows["status"] == "ok") & (rows["done_ns"] < seconds * 1e9)).sum()) / float(seconds)


def _used(group: str, used: dict[str, float], achieved: float) -> dict[str, Any]:
    user, system = (used[name] / used["seconds"] for name in ("cpu_user_s", "cpu_system_s"))
    return {
        "group": group,
        "user_s_per_s": user,
        "system_s_per_s": system,
        "rss_bytes": used.get("rss_peak_bytes", float("nan")),
        "switches_per_s": used.get("voluntary_per_s", 0.0) + used.get("involuntary_per_s", 0.0),
        "cpu_us_per_request": 1e6 * (user + system) / achieved if achieved else float("nan"),
    }


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Means over replicates of :func:`trials`, one row per case, λ and group; ``replicates`` counts them.

    ``verdict`` is SATURATED where any replicate was.
    """
    if table.empty:
        return table
    means = ["achieved_per_s", "user_s_per_s", "system_s_per_s", "rss_bytes", "switches_per_s", "cpu_us_per_request"]
    groups = table.groupby(KEYS, sort=False)
    found = groups[means].mean()
    found["replicates"] = groups["replicate"].nunique()
    found["verdict"] = groups["verdict"].agg(lambda told: min(told, default=""))  # SATURATED comes before VALID
    return found.reset_index()


def at_capacity(table: pd.DataFrame, capacity: Mapping[str, float] | None = None) -> pd.DataFrame:
    """What a deployment (every group but the client) uses at its capacity: input of :func:`infscale.analysis.cost.table`.

    ``table`` is of :func:`points`. One row per case and protocol: ``cpu_us_per_request`` and ``rss_peak_bytes`` at the
    highest rate that is VALID; ``capacity_per_s`` from ``capacity`` (λ* by label, NaN where it is not known; by default
    the rate achieved there); ``cores``, the CPU of a request there × the capacity.
    """
    served = table[(table["group"] != "client") & (table["verdict"] == VALID)] if len(table) else table
    if served.empty:
        return pd.DataFrame()
    keys = ["label", "protocol"]
    top = served[served["rate_per_s"] == served.groupby(keys)["rate_per_s"].transform("max")]
    sums = {"rss_bytes": "sum", "cpu_us_per_request": "sum", "achieved_per_s": "first"}
    found = top.groupby(keys, sort=False).agg(sums).reset_index()
    known = found["achieved_per_s"] if capacity is None else found["label"].map(capacity)
    found = found.drop(columns="achieved_per_s").rename(columns={"rss_bytes": "rss_peak_bytes"})
    return found.assign(capacity_per_s=known, cores=found["cpu_us_per_request"] * known / 1e6)
