"""Counts that servers and caches keep: requests, hits, time in the queue."""

import math

from infscale.deployment.endpoint import Endpoint
from infscale.deployment.framework import FRAMEWORKS
from infscale.errors import DeploymentError


def statistics(endpoint: Endpoint) -> dict[str, float]:
    """Return what the server has counted for its model since its start: ``requests``, and sums of ms (``…_ms``).

    The counts of several servers behind an endpoint are added. Empty where a server counts nothing (TensorFlow Serving
    without ``monitoring``), or does not tell.
    """
    if endpoint.members:
        counts = [statistics(member) for member in endpoint.members]
        return {key: sum(each[key] for each in counts) for key in counts[0]} if all(counts) else {}
    if endpoint.framework not in FRAMEWORKS:
        return {}
    try:
        return FRAMEWORKS[endpoint.framework].statistics(endpoint)
    except (DeploymentError, ValueError, KeyError):  # no answer, or not one that this framework gives
        return {}


def cache_counts(endpoint: Endpoint) -> dict[str, float]:
    """Return ``hits`` and ``misses`` of the cache in front of the server or within it; empty where there is none."""
    if endpoint.cache is not None:
        return endpoint.cache()
    counts = statistics(endpoint)
    if "cache_hits" not in counts:
        return {}
    return {"hits": counts["cache_hits"], "misses": counts["requests"] - counts["cache_hits"]}


def answered(endpoint: Endpoint) -> float:
    """Return how many requests the server has counted since its start; NaN where it does not tell."""
    return statistics(endpoint).get("requests", math.nan)
