"""A run as OpenMetrics text, for Prometheus and what else reads it.

Source: the OpenMetrics 1.0 specification: base units (seconds), units as suffixes of names, ``_total`` of counters, and
factors of an arm in an info metric that is joined by its labels.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import IDENTITY
from infscale.records.gate import Floats
from infscale.records.runs import Run

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS = tuple(base * 10.0**power for power in range(-4, 2) for base in (1.0, 2.0, 5.0))
"""Upper ends of the buckets of histograms: 0.1 ms to 50 s in steps of 1, 2, 5, s."""

PHASES = ("grid", "sensitivity")
"""Trials at set rates. Those of a search have a rate each, and would make a series each."""

OF_ARM = ("run", "arm", "label")
OF_POINT = (*OF_ARM, "rate_per_s", "verdict")
"""Labels of what is of an arm, and of its trials at a rate that have one verdict."""

ENDS = ("estimate", "low", "high")
"""An estimate and the ends of its 95 % interval, as values of the label ``end``."""


def text(run: Run, tables: Tables, *, timestamps: bool = False) -> str:
    """Return a run in the text format of OpenMetrics.

    Args:
        run: a stored run.
        tables: of it.
        timestamps: whether samples have the time at which the run ended (or began, if it has not): what fills a
            database with the past needs it, what is scraped must not have it.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed.
    """
    from prometheus_client.openmetrics.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    manifest = run.manifest
    at = pd.Timestamp(manifest.finished_at or manifest.started_at).timestamp() if timestamps else None
    families = list(_families(run, tables, at))

    class Collected:
        """The families, in the form that a registry asks for."""

        def collect(self) -> Iterable["Metric"]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    written: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return written.decode()


def _families(run: Run, tables: Tables, at: float | None) -> Iterator["Metric"]:
    yield _run_info(run, at)
    yield _arm_info(run, tables, at)
    yield from _of_rows(run, tables, at)
    yield _trials(run, tables, at)
    yield _saturation(run, tables, at)
    yield _contrasts(run, tables, at)


def _run_info(run: Run, at: float | None) -> "Metric":
    from prometheus_client.core import InfoMetricFamily

    manifest = run.manifest
    family = InfoMetricFamily("infscale_run", "A run: its question, its machine, its code.", labels=["run"])
    said = {
        "finding": manifest.design.finding,
        "question": manifest.design.question,
        "status": manifest.status,
        "cpu": manifest.machine.cpu,
        "cores": str(manifest.machine.cores),
        "commit": manifest.commit,
    }
    family.add_metric([run.id], said, timestamp=at)
    return family


def _arm_info(run: Run, tables: Tables, at: float | None) -> "Metric":
    from prometheus_client.core import InfoMetricFamily

    family = InfoMetricFamily("infscale_arm", "An arm: the levels of its factors.", labels=OF_ARM)
    factors = [name for name in IDENTITY if name not in ("run_id", "arm", "label")]
    for row in tables.arms.to_dict("records"):
        levels = {name: str(row[name]) for name in factors if not pd.isna(row[name]) and row[name] != ""}
        family.add_metric(_arm(run, row), levels, timestamp=at)
    return family


def _of_rows(run: Run, tables: Tables, at: float | None) -> Iterator["Metric"]:
    """Yield what is counted from rows: response and round-trip times, and requests by their status."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    note = "Requests that did not succeed are in the bucket +Inf alone, and their points have no sum"
    times = {
        "scheduled_ns": HistogramMetricFamily(
            "infscale_response_time_seconds",
            f"Time from the schedule to the answer. {note}.",
            labels=OF_POINT,
            unit="seconds",
        ),
        "sent_ns": HistogramMetricFamily(
            "infscale_round_trip_time_seconds",
            f"Time from the send to the answer. {note}.",
            labels=OF_POINT,
            unit="seconds",
        ),
    }
    requests = CounterMetricFamily(
        "infscale_requests", "Scheduled requests by what became of them.", labels=(*OF_POINT, "status")
    )
    for labels, rows in _points(run, tables):
        ok = rows["status"] == "ok"
        for start, family in times.items():
            seconds = ((rows["done_ns"] - rows[start])[ok] / 1e9).to_numpy(dtype=np.float64)
            whole = float(seconds.sum()) if ok.all() else None
            family.add_metric(labels, _buckets(seconds, len(rows)), whole, timestamp=at)
        for status, count in rows["status"].astype(str).value_counts().sort_index().items():
            requests.add_metric([*labels, str(status)], int(count), timestamp=at)
    yield from times.values()
    yield requests


def _points(run: Run, tables: Tables) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Yield the labels and the rows of each point: an arm at a set rate, with one verdict, over all lifetimes."""
    stored = {trial.manifest.trial_id: trial for trial in run.trials}
    at_rates = tables.trials[tables.trials["phase"].isin(PHASES)]
    for (_, rate, verdict), own in at_rates.groupby(["arm", "rate_per_s", "verdict"]):
        parts = [stored[name].samples(["scheduled_ns", "sent_ns", "done_ns", "status"]) for name in own["trial_id"]]
        rows = pd.concat([part.astype({"status": str}) for part in parts], ignore_index=True)
        if len(rows):
            yield [*_arm(run, own.iloc[0].to_dict()), f"{rate:g}", str(verdict)], rows


def _buckets(seconds: Floats, count: int) -> list[tuple[str, float]]:
    """Return cumulative counts of times by :data:`BUCKETS`; what is beyond, and what failed, is in +Inf."""
    within = np.searchsorted(np.sort(seconds), BUCKETS, side="right")
    finite = [(f"{end:g}" if end % 1 else f"{end:.1f}", float(n)) for end, n in zip(BUCKETS, within, strict=True)]
    return [*finite, ("+Inf", float(count))]


def _trials(run: Run, tables: Tables, at: float | None) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "infscale_trials", "Attempted trials by phase and verdict.", labels=(*OF_ARM, "phase", "verdict")
    )
    for (_, phase, verdict), own in tables.trials.groupby(["arm", "phase", "verdict"]):
        labels = [*_arm(run, own.iloc[0].to_dict()), str(phase), str(verdict)]
        family.add_metric(labels, len(own), timestamp=at)
    return family


def _saturation(run: Run, tables: Tables, at: float | None) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "infscale_saturation_rate_per_second",
        "Saturation rate, the highest arrival rate that an arm keeps up with, requests per second, and its 95 % "
        "interval; bound says where only a bound is known.",
        labels=(*OF_ARM, "bound", "end"),
    )
    for row in tables.arms.to_dict("records"):
        ends = zip(ENDS, (row["saturation_per_s"], row["low_per_s"], row["high_per_s"]), strict=True)
        for end, value in ends:
            if np.isfinite(value):
                family.add_metric([*_arm(run, row), str(row["bound"]), end], float(value), timestamp=at)
    return family


def _contrasts(run: Run, tables: Tables, at: float | None) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "infscale_contrast_ratio",
        "A contrast that was named before the run, arm by reference, with its interval and its answer under Holm.",
        labels=(*OF_ARM, "reference", "metric", "answer", "end"),
    )
    for row in tables.contrasts.to_dict("records"):
        ends = zip(ENDS, (row["ratio"], row["ratio_low"], row["ratio_high"]), strict=True)
        for end, value in ends:
            if not np.isnan(value):
                labels = [str(row[name]) for name in ("reference_label", "metric", "answer")]
                family.add_metric([*_arm(run, row), *labels, end], float(value), timestamp=at)
    return family


def _arm(run: Run, row: Mapping[object, object]) -> list[str]:
    """Return the values of :data:`OF_ARM` for a row of a table."""
    return [run.id, str(row["arm"]), str(row["label"])]
