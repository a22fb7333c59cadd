"""The counters that servers keep of themselves, read in Prometheus' text format."""

from collections import Counter
from collections.abc import Mapping

from infscale.deployment.client import fetch
from infscale.deployment.endpoint import Endpoint
from infscale.errors import DeploymentError

PATHS = {"tfserving": "/monitoring/prometheus/metrics"}
"""Where a server shows its counters on its REST port; those with an address for them show them at ``/metrics``."""

COUNTED = ("counter", "histogram", "summary")


def parse(text: str) -> dict[str, float]:
    """Every counter, and the ``_sum`` and ``_count`` of histograms and summaries, by ``name{label="value",…}``.

    Raises:
        ValueError: the text is not in Prometheus' format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.type in COUNTED else ():
            if sample.name.endswith(("_bucket", "_created")) or "quantile" in sample.labels:
                continue
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = float(sample.value)
    return found


def scrape(endpoint: Endpoint) -> dict[str, float]:
    """What the endpoint's server has counted since its start; empty where it shows no counters.

    Of replicas the sums. TensorFlow Serving shows them only if it was told to (``--monitoring_config_file``).
    """
    if endpoint.members:
        whole: Counter[str] = Counter()
        for one in endpoint.members:
            whole.update(scrape(one))
        return dict(whole)
    address, path = endpoint.metrics, PATHS.get(endpoint.framework, "/metrics")
    if not address and endpoint.rest:
        address, path = endpoint.rest, PATHS.get(endpoint.framework, "")
    if not address or not path or (address == endpoint.rest and "rest" in endpoint.tls):
        return {}
    try:
        return parse(fetch(address, "GET", path, timeout_s=5).decode())
    except (DeploymentError, ValueError):  # no page, or one of something else
        return {}


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """By how much the counters grew, those that did; one that was reset by a restart counts from 0."""
    growth = {name: value - old if value >= (old := before.get(name, 0.0)) else value for name, value in after.items()}
    return {name: value for name, value in growth.items() if value}
