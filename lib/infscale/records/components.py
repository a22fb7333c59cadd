"""Where the mean response time goes, with the help of the server's own counters.

Only means: a counter knows no single request, so no percentile can be split.
"""

import math
from collections.abc import Mapping

import pandas as pd

from infscale.records.manifest import Components

PARTS = ("lag", "wait", "transport", "queue", "compute")
"""The parts, in the order of a request's way."""

MATCH = 0.01
"""Largest accepted difference of the server's count of requests from the client's, as a share of the client's."""

OVERLAPPING = ("compute_output_ms",)
"""Counters left out of ``compute``: Triton sends the answer within its output phase, which ends after the answer has
left and may end after it has arrived. What the client sees of that phase is within ``transport``."""


def server_means(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the mean ms per request, by counter, between two readings of a server's statistics.

    Empty where the server counted no request or no time (TorchServe times none that came over gRPC).
    """
    requests = after.get("requests", 0) - before.get("requests", 0)
    times = {name: after[name] - before.get(name, 0.0) for name in after if name.endswith("_ms")}
    if requests <= 0 or not 0 < sum(times.values()) < math.inf:
        return {}
    return {name: value / requests for name, value in times.items()}


def split(samples: pd.DataFrame, before: Mapping[str, float], after: Mapping[str, float]) -> Components | None:
    """Return the mean ms of each part of the response time over the requests that succeeded; the parts add up to it.

    ``lag`` (due − scheduled) + ``wait`` (sent − due) + ``transport`` (network, operating system, the server's parsing
    and framing: what is left of the round-trip time) + ``queue`` + ``compute`` (all else that the server times until
    it answers) = ``response``.

    None where the server reports nothing, or where its readings cover other requests than those that
    succeeded here (it worked on after a timeout, or served somebody else): their means do not belong together.

    Args:
        samples: rows of one trial (``infscale.records.samples``).
        before, after: readings of the server's statistics around the trial (``infscale.deployment.counters``).
    """
    good = samples[samples["status"] == "ok"]
    means = server_means(before, after)
    counted = after.get("requests", 0) - before.get("requests", 0)
    if not means or abs(counted - len(good)) > MATCH * len(good):
        return None
    queue = means.pop("queue_ms", 0.0)
    compute = sum(value for name, value in means.items() if name not in OVERLAPPING)
    stages = ("scheduled_ns", "due_ns", "sent_ns", "done_ns")
    starts, ends = (good[list(names)].to_numpy(dtype=float) for names in (stages[:-1], stages[1:]))
    lag, wait, round_trip = (float(mean) for mean in (ends - starts).mean(axis=0) / 1e6)
    return Components(
        lag=lag,
        wait=wait,
        transport=round_trip - queue - compute,
        queue=queue,
        compute=compute,
        response=lag + wait + round_trip,
    )
