"""What groups of processes used during a trial, from readings ten times a second."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.errors import ConfigError

HOST = "host"
"""The group of what the kernel tells of no single process: the bytes of the loopback interface."""


def summarise(rows: pd.DataFrame, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """What each group used between two times (default: the first and the last reading); one row per group.

    ``cpu_user_s``, ``cpu_system_s``: CPU seconds within; readings are joined by straight lines, and a process that
    came later began at 0. ``cores``: CPU seconds ÷ ``seconds``. ``rss_mean_bytes``, ``rss_peak_bytes``: of the sum over
    the group's living processes (pages that they share count for each). ``voluntary_per_s``, ``involuntary_per_s``:
    context switches. ``processes``: how many were seen. ``network_bytes``: of the group "host" alone; what is not
    known is NaN.

    Raises:
        ConfigError: the end is not after the start.
    """
    start = int(rows["time_ns"].min()) if start_ns is None else start_ns
    end = int(rows["time_ns"].max()) if end_ns is None else end_ns
    if end <= start:
        raise ConfigError(f"end_ns={end} must be after start_ns={start}")
    groups = rows.groupby("group", sort=False, observed=True)
    return pd.DataFrame([{"group": name, **_group(own, start, end, rows)} for name, own in groups])


_COUNTERS = ("user_s", "system_s", "voluntary", "involuntary", "network_bytes")


def _group(own: pd.DataFrame, start: int, end: int, rows: pd.DataFrame) -> dict[str, Any]:
    first = int(rows["time_ns"].min())
    used = sum((_within(one, start, end, first) for _, one in own.groupby("pid")), np.zeros(len(_COUNTERS)))
    seconds = (end - start) / 1e9
    user, system, voluntary, involuntary, network = map(float, used)
    host = own["group"].iloc[0] == HOST
    window = own[(own["time_ns"] >= start) & (own["time_ns"] <= end)]
    memory = window["rss_bytes"].where(~window["ended"], 0).groupby(window["time_ns"]).sum()
    unknown = float("nan")
    return {
        "seconds": seconds,
        "cpu_user_s": user,
        "cpu_system_s": system,
        "cores": (user + system) / seconds,
        "rss_mean_bytes": unknown if host else float(memory.mean()),
        "rss_peak_bytes": unknown if host else float(memory.max()),
        "voluntary_per_s": unknown if host else voluntary / seconds,
        "involuntary_per_s": unknown if host else involuntary / seconds,
        "processes": int(own.loc[own["pid"] > 0, "pid"].nunique()),
        "network_bytes": network if host else unknown,
    }


def _within(one: pd.DataFrame, start: int, end: int, first: int) -> Any:
    """By how much a process's counters grew between two times, shape (5,)."""
    times = one["time_ns"].to_numpy()
    left = {"left": 0.0} if times[0] > max(first, start) else {}

    def grew(name: str) -> float:
        values = one[name].to_numpy()
        new = np.ones(len(values), bool)
        if name in ("voluntary", "involuntary"):  # read once a second and repeated in between
            new[1:-1] = values[1:-1] != values[:-2]
        return float(np.diff(np.interp([start, end], times[new], values[new], **left))[0])

    return np.array([grew(name) for name in _COUNTERS])
