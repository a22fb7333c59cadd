"""What servers count of themselves."""

import math

from infscale.deployment.endpoint import Endpoint
from infscale.errors import DeploymentError


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """What the server has counted for its model since its start: ``requests``, and sums of ms (names in ``…_ms``).

    Of replicas the sum. Empty where a server counts nothing (TensorFlow Serving without ``monitoring``), or does
    not tell.
    """
    from infscale.deployment import tfserving, torchserve, triton

    if endpoint.members:
        counted = [statistics(member) for member in endpoint.members]
        return {key: sum(one[key] for one in counted) for key in counted[0]} if all(counted) else {}
    readers = {"tfserving": tfserving.statistics, "torchserve": torchserve.statistics, "triton": triton.statistics}
    if endpoint.framework not in readers or not endpoint.rest:  # attached by gRPC alone
        return {}
    try:
        return readers[endpoint.framework](endpoint)
    except (DeploymentError, ValueError, KeyError):  # an answer that is not what this server sends
        return {}


def cache_counts(endpoint: Endpoint) -> dict[str, float]:
    """``hits`` and ``misses`` of the cache in front of the server or within it; empty where there is none to ask."""
    from infscale.deployment.fronts import gateway

    try:
        if "gateway" in endpoint.parts:
            told = gateway.stats(endpoint)
            return {name: float(told[name]) for name in ("hits", "misses", "store_errors", "bytes") if told.get(name)}
        if endpoint.framework == "triton":
            told = statistics(endpoint)
            return {"hits": told["cache_hits"], "misses": told["requests"] - told["cache_hits"]}
    except (DeploymentError, KeyError):
        return {}
    return {}


def answered(endpoint: Endpoint) -> float:
    """Requests that the server has counted since its start; NaN where it does not tell."""
    return statistics(endpoint).get("requests", math.nan)
