"""The counters that servers keep of themselves, read in Prometheus' text format."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint
from infscale.errors import DeploymentError

COUNTED = ("counter", "histogram", "summary")
"""Kinds of metrics whose values only grow."""


def page(endpoint: Endpoint) -> str:
    """Return the text of the endpoint's page of counters.

    Raises:
        DeploymentError: the server does not answer, or shows no such page.
    """
    address, _, path = endpoint.metrics.partition("/")
    if address == endpoint.rest:
        return endpoint.fetch("GET", f"/{path}", timeout_s=5).decode()
    return fetch(address, "GET", f"/{path}", timeout_s=5).decode()


def parse(text: str) -> dict[str, float]:
    """Return every counter, and ``_sum`` and ``_count`` of histograms and summaries, by ``name{label="value",…}``.

    Raises:
        ValueError: the text is not in Prometheus' format.
    """
    counters: dict[str, float] = {}
    for family in _families(text):
        for sample in family.samples if family.type in COUNTED else ():
            if sample.name.endswith(("_bucket", "_created")) or "quantile" in sample.labels:
                continue
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            counters[f"{sample.name}{{{labels}}}" if labels else sample.name] = float(sample.value)
    return counters


def _families(text: str) -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        return list(text_string_to_metric_families(text))
    except (IndexError, OverflowError) as error:  # labels and numbers that it does not expect
        raise ValueError(f"not a page of counters: {error}") from error


def scrape(endpoint: Endpoint) -> dict[str, float]:
    """Return what the endpoint's server has counted since its start; empty where it shows no counters.

    The counters of several servers behind an endpoint are added. TensorFlow Serving shows them only if it was started
    with ``--monitoring_config_file``.
    """
    if endpoint.members:
        total: Counter[str] = Counter()
        for member in endpoint.members:
            total.update(scrape(member))
        return dict(total)
    if not endpoint.metrics:
        return {}
    try:
        return parse(page(endpoint))
    except (DeploymentError, ValueError):  # no page, or one of something else
        return {}


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each counter grew, without those that did not; one that a restart reset counts from 0."""
    growth = {name: value - old if value >= (old := before.get(name, 0.0)) else value for name, value in after.items()}
    return {name: value for name, value in growth.items() if value}
