"""What a trial used, put together for its manifest: processes, containers, the servers' own counters."""

import contextlib
import math
from collections.abc import Iterator

import pandas as pd

from infscale.deployment import prometheus
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.usage import containers
from infscale.experiment.usage import sampler as usage
from infscale.experiment.usage.elsewhere import Elsewhere
from infscale.records.manifest import Container, Generator, GroupUsage
from infscale.records.usage import summarise


class Used:
    """What was read during one trial; nothing where nothing was asked for."""

    def __init__(self, sampler: usage.Sampler | None = None, elsewhere: Elsewhere | None = None) -> None:
        self._sampler, self._elsewhere = sampler, elsewhere
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
        if self._elsewhere:
            groups |= self._elsewhere.groups(generator.start_ns, duration_s)
        # A library is seen late, after its costly imports, and workers are elsewhere: their own count is taken.
        if generator.client != "wire" or generator.workers:
            client = groups.setdefault("client", GroupUsage(seconds=duration_s))
            client.cpu_user_s, client.cpu_system_s = generator.cpu_user_s, generator.cpu_system_s
            client.cores = (generator.cpu_user_s + generator.cpu_system_s) / duration_s
            shards = sum(shard.peak_memory_bytes for shard in generator.shards)
            client.rss_peak_bytes = generator.peak_memory_bytes or shards or None
        return groups


@contextlib.contextmanager
def watching(endpoint: Endpoint, wanted: bool, elsewhere: Elsewhere | None = None) -> Iterator[Used]:
    """Read what the client and ``endpoint`` use while the context lasts, if that is ``wanted``.

    Servers on other machines are read by ``elsewhere``.
    """
    if not wanted:
        yield Used()
        return
    before = prometheus.scrape(endpoint)
    with (
        usage.Sampler(usage.groups_of(endpoint)) as sampler,
        containers.watching(endpoint) as seen,
        elsewhere or contextlib.nullcontext(),
    ):
        used = Used(sampler, elsewhere)
        yield used
    used.containers = seen
    grown = prometheus.grown(before, prometheus.scrape(endpoint))
    used.counters = {name: value for name, value in grown.items() if math.isfinite(value)}
