"""Gates on the workers of a cluster: were all there to the end, and did they begin together?"""

import pandas as pd

from infscale.records.gate import Gate
from infscale.records.manifest import Generator
from infscale.records.samples import NEVER

LOST_SHARD = "lost_shard"
"""Name of the gate on workers that were lost."""

SKEW_MAX_NS = 1e6
"""Largest accepted difference of a worker's start from the driver's, ns: as much as the lag may be."""


def workers(generator: Generator) -> list[Gate]:
    """Judge the workers of a cluster: all must have been there to the end, and have begun together.

    A lost worker's requests were not sent, as far as anybody knows, so that the load was another one. Empty without a
    cluster.
    """
    if not generator.workers:
        return []
    lost = [worker for worker in generator.workers if worker.lost]
    shards = sum(len(worker.shards) for worker in generator.workers)
    text = f"all {len(generator.workers)} workers were there to the end"
    if lost:
        names = "; ".join(f"{one.name} ({one.lost}; shards {', '.join(map(str, one.shards))})" for one in lost)
        text = f"lost in the load, of {shards} shards: {names}"
    there = [worker for worker in generator.workers if not worker.lost] or generator.workers
    worst = max(there, key=lambda worker: abs(worker.skew_ns[0]))
    skew = abs(worst.skew_ns[0])
    known = f"known within {worst.within_ns / 1e6:.3f} ms, drift {worst.drift_ppm:+.1f} ppm"
    together = (
        f"the workers began within {skew / 1e6:.3f} ms of the schedule (at most {SKEW_MAX_NS / 1e6:g} ms; {known})"
    )
    return [
        Gate(LOST_SHARD, not lost, len(lost), 0.0, text),
        Gate("skew", skew <= SKEW_MAX_NS, float(skew), SKEW_MAX_NS, together),
    ]


def on_one_clock(samples: pd.DataFrame, generator: Generator, duration_ns: float) -> pd.DataFrame:
    """Return the rows of a cluster's workers with their due times as the driver's clock would have told them.

    Each worker's skew is joined between the start and the end by a straight line. Rows without a cluster are returned
    as they are.
    """
    skews = {shard: worker.skew_ns for worker in generator.workers for shard in worker.shards}
    if not skews:
        return samples
    start, end = (samples["shard"].map({shard: skew[i] for shard, skew in skews.items()}) for i in (0, 1))
    moved = samples["due_ns"] + start + (end - start) * samples["scheduled_ns"] / duration_ns
    return samples.assign(due_ns=moved.round().astype("int64").where(samples["due_ns"] != NEVER, NEVER))
