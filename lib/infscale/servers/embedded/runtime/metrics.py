"""TensorFlow Serving's Prometheus metrics: their names, labels and buckets, and the page that shows them."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from infscale.servers.asgi.status import Code

_SERVING = ":tensorflow:serving:"
REQUEST_COUNT = _SERVING + "request_count"
REQUEST_LATENCY = _SERVING + "request_latency"
RUNTIME_LATENCY = _SERVING + "runtime_latency"
QUEUING_LATENCY = _SERVING + "batching_session:queuing_latency"
WRAPPED_RUNS = _SERVING + "batching_session:wrapped_run_count"
GRAPH_RUNS = ":tensorflow:core:graph_runs"
GRAPH_RUN_TIME = ":tensorflow:core:graph_run_time_usecs"
LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
LOAD_LATENCY = ":tensorflow:cc:saved_model:load_latency"

_MICROS = tuple(10 * 1.8**power for power in range(33))  # to about 20 minutes
_LABELS: dict[str, tuple[str, ...]] = {
    LOADS: ("model_path", "status"),
    LOAD_LATENCY: ("model_path",),
    GRAPH_RUN_TIME: (),
    GRAPH_RUNS: (),
    QUEUING_LATENCY: ("thread_pool_name",),
    WRAPPED_RUNS: (),
    REQUEST_COUNT: ("model_name", "status"),
    REQUEST_LATENCY: ("model_name", "API", "entrypoint"),
    RUNTIME_LATENCY: ("model_name", "API", "runtime"),
}
_BUCKETS = {  # upper limits in µs, the last bucket's (+Inf) left out
    QUEUING_LATENCY: tuple(100 * 1.2**power for power in range(52)),
    REQUEST_LATENCY: _MICROS,
    RUNTIME_LATENCY: _MICROS,
}
# Clients choose the model names that are counted as NOT_FOUND: their number must have an end.
_MOST_CELLS = 1000

Labels = tuple[str, ...]


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0


@dataclass
class Metrics:
    """Counters and histograms since the server's start. All times are in µs."""

    _counters: dict[str, dict[Labels, float]] = field(default_factory=dict)
    _histograms: dict[str, dict[Labels, _Histogram]] = field(default_factory=dict)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        cells = self._counters.setdefault(name, {})
        if labels in cells or len(cells) < _MOST_CELLS:
            cells[labels] = cells.get(labels, 0) + by

    def sample(self, name: str, micros: float, *labels: str) -> None:
        """Add one value to a histogram; each bucket holds the values below its limit."""
        cells = self._histograms.setdefault(name, {})
        if labels not in cells:
            if len(cells) >= _MOST_CELLS:
                return
            cells[labels] = _Histogram([0] * (len(_BUCKETS[name]) + 1))
        cell = cells[labels]
        cell.counts[bisect_left(_BUCKETS[name], micros)] += 1
        cell.total += micros

    def request(self, model: str, api: str, entrypoint: str, code: Code, micros: float) -> None:
        """Count a finished prediction request; its latency counts only if it succeeded."""
        self.count(REQUEST_COUNT, model, code.name)
        if code is Code.OK:
            self.sample(REQUEST_LATENCY, micros, model, api, entrypoint)

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        lines: list[str] = []
        for name in sorted(_LABELS):
            if name in self._histograms:
                lines.append(f"# TYPE {name} histogram")
                for labels, cell in self._histograms[name].items():
                    lines += _histogram_lines(name, _pairs(name, labels), cell)
            elif name in self._counters:
                lines.append(f"# TYPE {name} counter")
                cells = self._counters[name]
                lines += [f"{name}{{{','.join(_pairs(name, key))}}} {int(cells[key])}" for key in list(cells)]
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _histogram_lines(name: str, pairs: list[str], cell: _Histogram) -> Iterable[str]:
    below = 0
    for limit, count in zip([*map("{:g}".format, _BUCKETS[name]), "+Inf"], cell.counts, strict=True):
        below += count
        labels = ",".join([*pairs, f'le="{limit}"'])
        yield f"{name}_bucket{{{labels}}} {below}"
    yield f"{name}_sum{{{','.join(pairs)}}} {cell.total:g}"
    yield f"{name}_count{{{','.join(pairs)}}} {below}"


def _pairs(name: str, values: Labels) -> list[str]:
    escaped = (re.sub(r'(["\\])', r"\\\1", value).replace("\n", "\\n") for value in values)
    return [f'{label}="{value}"' for label, value in zip(_LABELS[name], escaped, strict=True)]
