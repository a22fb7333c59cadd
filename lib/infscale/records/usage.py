"""What groups of processes used during a trial, from readings ten times a second."""

import math

import numpy as np
import pandas as pd

from infscale.errors import ConfigError
from infscale.records.gate import Floats
from infscale.records.manifest import GroupUsage

CLIENT = "client"
"""The group of the load generator's processes."""

HOST = "host"
"""The group that stands for the whole machine: the bytes of the loopback interface, which belong to no process."""


def summarise(rows: pd.DataFrame, start_ns: int | None = None, end_ns: int | None = None) -> dict[str, GroupUsage]:
    """Return what each group of processes used between two times, by its name.

    CPU seconds and context switches are joined between readings by straight lines; a process that came later began at
    0. Memory is that of the sum over the group's living processes, where pages that they share count for each.
    ``network_bytes`` is known for the group "host" alone, and that group has nothing else.

    Args:
        rows: readings, as :class:`infscale.experiment.usage.sampler.Sampler` gives them.
        start_ns, end_ns: the two times (default: the first and the last reading), ns.

    Raises:
        ConfigError: the end is not after the start.
    """
    start = int(rows["time_ns"].min()) if start_ns is None else start_ns
    end = int(rows["time_ns"].max()) if end_ns is None else end_ns
    if end <= start:
        raise ConfigError(f"end_ns={end} must be after start_ns={start}")
    groups = rows.groupby("group", sort=False, observed=True)
    return {str(name): _group(own, start, end, rows) for name, own in groups}


_COUNTERS = ("user_s", "system_s", "voluntary", "involuntary", "network_bytes")


def _group(own: pd.DataFrame, start: int, end: int, rows: pd.DataFrame) -> GroupUsage:
    first = int(rows["time_ns"].min())
    used = sum((_within(one, start, end, first) for _, one in own.groupby("pid")), np.zeros(len(_COUNTERS)))
    seconds = (end - start) / 1e9
    user, system, voluntary, involuntary, network = map(float, used)
    usage = GroupUsage(seconds=seconds, processes=int(own.loc[own["pid"] > 0, "pid"].nunique()))
    usage.cpu_user_s, usage.cpu_system_s, usage.cores = _known(user), _known(system), _known((user + system) / seconds)
    if own["group"].iloc[0] == HOST:
        usage.network_bytes = _known(network)
        return usage
    window = own[(own["time_ns"] >= start) & (own["time_ns"] <= end)]
    memory = window["rss_bytes"].where(~window["ended"], 0).groupby(window["time_ns"]).sum()
    usage.rss_mean_bytes, usage.rss_peak_bytes = _known(memory.mean()), _known(memory.max())
    usage.voluntary_per_s, usage.involuntary_per_s = _known(voluntary / seconds), _known(involuntary / seconds)
    return usage


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _within(one: pd.DataFrame, start: int, end: int, first: int) -> Floats:
    """Return by how much a process's counters grew between two times, shape (5,)."""
    times = one["time_ns"].to_numpy()
    left = {"left": 0.0} if times[0] > max(first, start) else {}

    def grew(name: str) -> float:
        values = one[name].to_numpy()
        new = np.ones(len(values), bool)
        if name in ("voluntary", "involuntary"):  # read once a second and repeated in between
            new[1:-1] = values[1:-1] != values[:-2]
        return float(np.diff(np.interp([start, end], times[new], values[new], **left))[0])

    return np.array([grew(name) for name in _COUNTERS])
