"""What a trial used, put together for its manifest: processes, containers, the servers' own counters."""

import contextlib
import math
from collections.abc import Iterator

import pandas as pd

from infscale.deployment import prometheus
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.usage import containers
from infscale.experiment.usage import sampler as usage
from infscale.records.manifest import Container, Generator, GroupUsage
from infscale.records.usage import summarise


class Used:
    """What was read during one trial; nothing where nothing was asked for."""

    def __init__(self, sampler: usage.Sampler | None = None) -> None:
        self._sampler = sampler
        self.rows: pd.DataFrame | None = None
        self.counters: dict[str, float] = {}
        self.containers: list[Container] = []

    def mark(self) -> None:
        """Take a reading now: the load starts or has ended."""
        if self._sampler:
            self._sampler.refresh()

    def groups(self, generator: Generator, duration_s: float) -> dict[str, GroupUsage]:
        """Return what each group of processes used within the arrivals; empty where nothing was asked for.

        Args:
            generator: the trial's; its ``start_ns`` is time 0 of the trial on the monotonic clock.
            duration_s: length of the arrivals, s.
        """
        if self._sampler is None or generator.start_ns is None:
            return {}
        self.rows = self._sampler.rows(generator.start_ns)
        groups = summarise(self.rows, 0, int(duration_s * 1e9))
        if generator.client != "wire":  # it is seen late, after its costly imports: its own count is taken
            client = groups.setdefault("client", GroupUsage(seconds=duration_s))
            client.cpu_user_s, client.cpu_system_s = generator.cpu_user_s, generator.cpu_system_s
            client.cores = (generator.cpu_user_s + generator.cpu_system_s) / duration_s
            client.rss_peak_bytes = generator.peak_memory_bytes
        return groups


@contextlib.contextmanager
def watching(endpoint: Endpoint, wanted: bool) -> Iterator[Used]:
    """Read what the client and ``endpoint`` use while the context lasts, if that is ``wanted``."""
    if not wanted:
        yield Used()
        return
    before = prometheus.scrape(endpoint)
    with usage.Sampler(usage.groups_of(endpoint)) as sampler, containers.watching(endpoint) as seen:
        used = Used(sampler)
        yield used
    used.containers = seen
    grown = prometheus.grown(before, prometheus.scrape(endpoint))
    used.counters = {name: value for name, value in grown.items() if math.isfinite(value)}
