"""What servers on other machines use: read by an agent of ours there, or from a Prometheus server that watches them.

A source is named by one text for each group of processes:

- ``HOST:PORT``: a worker of the cluster that runs on HOST reads the processes behind that port, ten times a second; it
  makes no load;
- ``prometheus:http://HOST:9090#job="triton"``: the counters ``process_cpu_seconds_total`` and
  ``process_resident_memory_bytes`` with these labels; after the ``#`` another counter of CPU seconds may stand with its
  labels, such as ``container_cpu_usage_seconds_total{pod="triton-0"}``.
"""

import contextlib
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from types import TracebackType

import numpy as np
import pandas as pd

from infscale.errors import ConfigError, DeploymentError
from infscale.experiment.usage import agent
from infscale.load.cluster import rows
from infscale.load.cluster.connect import Cluster, Member, join
from infscale.load.cluster.line import LineBrokenError, Message, Read, Readings, Watch, Watching
from infscale.records.gate import Floats
from infscale.records.manifest import GroupUsage
from infscale.records.usage import HOST, summarise

PROMETHEUS = "prometheus:"
"""How the source begins that is a Prometheus server."""

LOOK_BACK_S = 120
"""Samples of Prometheus are asked for from so long before the load, s: they are a scrape interval apart."""

ANSWER_S = 10.0
"""Longest wait for an agent, or for Prometheus, s."""


class Elsewhere:
    """Reads what servers on other machines use; a context manager for each trial.

    Args:
        watched: sources by the name of their group, see :mod:`infscale.experiment.usage.elsewhere`.

    Raises:
        ConfigError: a source of another form.
    """

    def __init__(self, watched: dict[str, str]) -> None:
        self._ports: dict[str, dict[str, int]] = {}
        self._queried: dict[str, tuple[str, str]] = {}
        for group, source in watched.items():
            if source.startswith(PROMETHEUS):
                self._queried[group] = _query_of(source)
                continue
            host, _, port = source.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536 or group == HOST:
                accepted = 'HOST:PORT, or prometheus:http://HOST:9090#job="NAME"'
                raise ConfigError(f"watched: {group}={source!r} tells nobody's usage; accepted: {accepted}")
            self._ports.setdefault(host, {})[group] = int(port)
        self._agents: dict[str, Member] = {}
        self._read: list[pd.DataFrame] = []
        self._since_s = 0.0

    def hosts(self) -> list[str]:
        """Return the machines on which a worker is needed as an agent."""
        return list(self._ports)

    def reach(self, cluster: Cluster | None) -> None:
        """Start the agents, each on the worker that is reserved on its host.

        Raises:
            ConfigError: there is no cluster.
            DeploymentError: an agent does not come, or sees no process at its port; Prometheus knows nothing.
        """
        now = time.time()
        for url, query in self._queried.values():
            prometheus(url, query, now - 1, now)
        if not self._ports:
            return
        if cluster is None:
            raise ConfigError(f"watched: {', '.join(self._ports)} needs a worker there; accepted: with cluster=…")
        for (host, ports), name in zip(self._ports.items(), cluster.reserved, strict=True):
            (member,) = join(cluster, [name], agent.serve)
            self._agents[host] = member
            self._begin(member, ports)
            self._end(member)

    def __enter__(self) -> "Elsewhere":
        self._read, self._since_s = [], time.time()
        for host, member in self._agents.items():
            self._begin(member, self._ports[host])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._read = [self._end(member) for member in self._agents.values()]

    @staticmethod
    def _begin(member: Member, ports: dict[str, int]) -> None:
        try:
            member.read_clock()
        except LineBrokenError as broken:
            raise DeploymentError(f"the agent on {member.name} is gone: {broken}") from broken
        said, _ = _ask(member, Watch(ports))
        if not isinstance(said, Watching) or said.fault:
            fault = said.fault if isinstance(said, Watching) else "it says something else"
            raise DeploymentError(f"the agent on {member.name} cannot read what the server uses: {fault}")

    @staticmethod
    def _end(member: Member) -> pd.DataFrame:
        """Return an agent's readings, their times on this machine's monotonic clock, ns."""
        said, data = _ask(member, Read())
        if not isinstance(said, Readings):
            raise DeploymentError(f"the agent on {member.name} sends no readings")
        frame = rows.table(data)
        clock = member.clock()
        frame["time_ns"] -= clock.offset_at(clock.at_ns)
        return frame[frame["group"] != HOST]

    def groups(self, start_ns: int, duration_s: float) -> dict[str, GroupUsage]:
        """Return what each group used within a load; call it after the context's end.

        Args:
            start_ns: the load's time 0 on this machine's monotonic clock, ns.
            duration_s: its length, s.
        """
        found: dict[str, GroupUsage] = {}
        for frame in self._read:
            found |= summarise(frame.assign(time_ns=frame["time_ns"] - start_ns), 0, int(duration_s * 1e9))
        began_s = time.time() - (time.monotonic_ns() - start_ns) / 1e9
        for group, (url, query) in self._queried.items():
            with contextlib.suppress(DeploymentError):  # it answered before: the trial counts without this group
                found[group] = prometheus(url, query, began_s, began_s + duration_s)
        return found


def _ask(member: Member, message: Message) -> tuple[Message, bytes]:
    try:
        member.line.send(message)
        return member.line.receive(ANSWER_S)
    except LineBrokenError as broken:
        raise DeploymentError(f"the agent on {member.name} is gone: {broken}") from broken


def _query_of(source: str) -> tuple[str, str]:
    url, _, query = source.removeprefix(PROMETHEUS).partition("#")
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url) or not query:
        raise ConfigError(f'watched: {source!r}; accepted: prometheus:http://HOST:9090#job="NAME"')
    return url.rstrip("/"), query


# ------------------------------------------------------------------------------------------ Prometheus


def prometheus(url: str, query: str, start_s: float, end_s: float) -> GroupUsage:
    """Return what Prometheus knows of a group of processes between two times.

    CPU time is the growth of the counters between the scrapes that lie around the two times, brought to their length:
    with a scrape interval that is long beside the load, it is that of the time around.

    Args:
        url: of the Prometheus server.
        query: labels, or a counter of CPU seconds with its labels.
        start_s, end_s: Unix times, s.

    Raises:
        DeploymentError: it does not answer, or knows nothing of these processes.
    """
    own = "{" in query
    cpu = _samples(url, query if own else f"process_cpu_seconds_total{{{query}}}", start_s, end_s)
    rates = [rate for times, values in cpu if (rate := _rate(times, values, start_s, end_s)) is not None]
    if not rates:
        raise DeploymentError(f"Prometheus at {url} has no two samples of {query} around the load")
    seconds = end_s - start_s
    usage = GroupUsage(seconds=seconds, processes=len(rates), cores=float(sum(rates)))
    if not own:
        memory = _samples(url, f"process_resident_memory_bytes{{{query}}}", start_s, end_s)
        if memory:
            usage.rss_mean_bytes = float(sum(np.mean(values) for _, values in memory))
            usage.rss_peak_bytes = float(sum(np.max(values) for _, values in memory))
    return usage


Series = tuple[Floats, Floats]
"""Times (Unix, s) and values of one time series."""


def _samples(url: str, query: str, start_s: float, end_s: float) -> list[Series]:
    """Return the raw samples of every series of a query, from before the load until now."""
    back = int(end_s - start_s) + LOOK_BACK_S
    asked = urllib.parse.urlencode({"query": f"{query}[{back}s]", "time": f"{time.time():.3f}"})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=ANSWER_S) as answer:  # noqa: S310 - http or https: _query_of
            result = json.load(answer)["data"]["result"]
        found = [np.asarray(series["values"], dtype=np.float64).T for series in result]
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError) as error:
        raise DeploymentError(f"Prometheus at {url} does not answer {query}: {error}") from error
    return [(times, values) for times, values in found]


def _rate(at: Floats, counted: Floats, start_s: float, end_s: float) -> float | None:
    """Return the growth per second between the samples around two times; None without two of them."""
    if len(at) < 2:
        return None
    first = max(0, int(np.searchsorted(at, start_s, side="right")) - 1)
    last = min(len(at) - 1, int(np.searchsorted(at, end_s, side="left")))
    if first >= last:
        first = last - 1
    grown = np.diff(counted[first : last + 1])
    grown = np.where(grown < 0, counted[first + 1 : last + 1], grown)  # a process that began anew counts from 0
    return float(grown.sum() / (at[last] - at[first]))
