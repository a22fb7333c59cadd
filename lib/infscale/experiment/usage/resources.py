"""What a trial used, put together for its manifest: processes, containers, the servers' own counters."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from infscale.deployment import prometheus
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.usage import containers
from infscale.experiment.usage import sampler as usage
from infscale.records.usage import summarise


class Used:
    """What was read of one trial; nothing where nothing was asked for."""

    def __init__(self, sampler: usage.Sampler | None = None) -> None:
        self._sampler = sampler
        self.rows: pd.DataFrame | None = None
        self.counters: dict[str, float] = {}
        self.containers: list[dict[str, Any]] = []

    def mark(self) -> None:
        """Take a reading now: the load starts or has ended."""
        if self._sampler:
            self._sampler.refresh()

    def told(self, stats: Mapping[str, Any], duration_s: float) -> dict[str, Any]:
        """For the manifest: ``usage`` by group, of the seconds of arrivals; ``counters`` that grew; ``containers``.

        ``stats`` are the client's: ``start_ns`` is time 0 of the trial (CLOCK_MONOTONIC).
        """
        if self._sampler is None:
            return {}
        self.rows = self._sampler.rows(stats["start_ns"])
        summary = summarise(self.rows, 0, int(duration_s * 1e9)).set_index("group")
        groups = {
            str(group): {str(k): v for k, v in row.items() if not np.isnan(v)}
            for group, row in summary.to_dict("index").items()
        }
        if "shards" not in stats:  # a client library is found late, after its costly imports: its own count is taken
            user, system = stats["cpu_user_s"], stats["cpu_system_s"]
            count = {"cpu_user_s": user, "cpu_system_s": system, "cores": (user + system) / duration_s}
            count["rss_peak_bytes"] = stats["peak_memory_bytes"]
            groups["client"] = {"seconds": duration_s, **groups.get("client", {}), **count}
        told: dict[str, Any] = {"usage": groups, "counters": self.counters}
        return told | ({"containers": self.containers} if self.containers else {})


@contextlib.contextmanager
def watching(endpoint: Endpoint, wanted: bool) -> Iterator[Used]:
    """Read within what the client and ``endpoint`` use, if that is ``wanted``."""
    if not wanted:
        yield Used()
        return
    before = prometheus.scrape(endpoint)
    with usage.Sampler(usage.groups_of(endpoint)) as sampler, containers.watching(endpoint) as seen:
        used = Used(sampler)
        yield used
    used.containers = seen
    used.counters = prometheus.grown(before, prometheus.scrape(endpoint))
