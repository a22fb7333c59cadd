"""What a design's clients say of servers whose behaviour is known: null servers that stall once, or answer at once.

Of a server that stalls, an open loop meets the stall with every request that comes meanwhile, a closed loop with one of
each user. A client that is asked for more than it can send shows its own limit.
"""

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from infscale.errors import MissingError
from infscale.experiment.design.arm import CLIENTS, Arm
from infscale.experiment.design.design import Design
from infscale.experiment.design.labels import labels
from infscale.experiment.trial import Plan, check_client, send
from infscale.load import schedule
from infscale.load.null_server import null_server
from infscale.records.manifest import LATE_MS, PERCENTILES, KnownLoad, Tool
from infscale.vocabulary import SCHEME

STALL_RATE, STALL_S, STALL_MS = 200.0, 6.0, 300.0
"""λ (requests/s) and length (s) of the load on a server that stalls once in its middle, and for how long (ms): 5 % of
the load meets the stall in an open loop, and 8 of 1,200 requests, less than 1 %, in a closed one of 8 users."""

LIMIT_RATE, LIMIT_S = 300_000.0, 0.5
"""λ (requests/s) of a load that shows what a client can send: on two cores none can send so much. Its length (s) for
clients that send until a time is over; the others are given a number of requests."""

ENGINE_REQUESTS, LIMIT_REQUESTS = 60_000, 10_000
"""Requests of that load for the load engine, and for other clients that are given a number: they take seconds to it."""

BODY_BYTES = 3_200
"""Size of a request's body: about a row of the model ``mlp``."""

_TIMEOUT_S = 60.0
_QUANTILES = dict(zip(PERCENTILES, (0.5, 0.95, 0.99), strict=True))

Ints = npt.NDArray[np.int64]


def measure(design: Design, say: Callable[[str], None]) -> dict[int, Tool]:
    """Return what the client of each arm made of the two servers, by arm; clients that are not installed are left out.

    Raises:
        EngineError: a client failed.
    """
    known: dict[tuple[object, ...], Tool] = {}
    found: dict[int, Tool] = {}
    for number, (arm, label) in enumerate(zip(design.arms, labels(design.arms), strict=True)):
        try:
            check_client(arm.client)
        except MissingError:  # the first lifetime says so, and leaves the arm out
            continue
        if arm.sending not in known:
            stall = load(arm, STALL_RATE, STALL_S, design.seed, STALL_MS)
            limit = load(arm, LIMIT_RATE, _limit_s(arm.client), design.seed)
            known[arm.sending] = Tool(stall=stall, limit=limit)
            most = f"at most {limit.answered_per_s:.0f} requests/s"
            say(f"{label}: of a server that stalls once, {stall.late} answers are late; {most}")
        found[number] = known[arm.sending]
    return found


def _limit_s(client: str) -> float:
    """Return the length of the load that shows a client's limit, s."""
    if not CLIENTS[client].counted:
        return LIMIT_S
    return (ENGINE_REQUESTS if client == "wire" else LIMIT_REQUESTS) / LIMIT_RATE


def load(arm: Arm, rate_per_s: float, duration_s: float, seed: int, stall_ms: float = 0.0) -> KnownLoad:
    """Load a null server by an arm's client, and return what came of it.

    Args:
        arm: protocol, client and connections count.
        rate_per_s, duration_s: λ, requests/s, and length of the arrivals, s.
        seed: of the arrivals: equal for all arms.
        stall_ms: how long the server stands still once, in the middle of the load; 0 for never.
    """
    arrivals = schedule.poisson(rate_per_s, duration_s, np.random.SeedSequence(seed))
    service = None
    if stall_ms:
        service = np.zeros(len(arrivals), np.int64)
        service[len(arrivals) // 2] = int(stall_ms * 1e6)
    plan = Plan(arm, rate_per_s, duration_s, _TIMEOUT_S, seed)
    choice = np.zeros(len(arrivals), np.int32)
    with null_server(service_ns=service) as server:
        address = {"rest": server.rest, "grpc": server.grpc}[arm.protocol]
        result = send(
            plan, f"{SCHEME[arm.protocol]}://{address}/infscale.Null/Call", [bytes(BODY_BYTES)], arrivals, choice
        )
    rows = result.samples[result.samples["status"] == "ok"]
    response, roundtrip = ((rows["done_ns"] - rows[name]).to_numpy() for name in ("scheduled_ns", "sent_ns"))
    users, said = CLIENTS[arm.client].tool == "locust", result.generator.reported
    interval_ns = int(1e9 * arm.limit() / rate_per_s)
    seconds = float(rows["done_ns"].max() - rows["sent_ns"].min()) / 1e9 if len(rows) else 0.0
    return KnownLoad(
        rate_per_s=rate_per_s,
        stall_ms=stall_ms,
        rows=len(result.samples),
        late=int((response > LATE_MS * 1e6).sum()),
        answered_per_s=len(rows) / seconds if seconds else 0.0,
        cpu_us=1e6 * result.generator.cpu_s / max(1, len(result.samples)),
        response=_percentiles(response),
        roundtrip=_percentiles(roundtrip),
        corrected=_percentiles(with_omitted(response, interval_ns)) if users else {},
        reported=said and msgspec.structs.replace(said, files=[]),  # its logs are of no trial
    )


def with_omitted(response_ns: Ints, interval_ns: int) -> Ints:
    """Return response times with those of the requests that a paced user did not send while it waited.

    A response R that is longer than the user's interval I kept R − I, R − 2 I, … from being measured.

    Source: G. Tene, HdrHistogram, ``recordValueWithExpectedInterval``.

    Args:
        response_ns: shape (n,), ns.
        interval_ns: time between two requests of one user, ns.
    """
    omitted = [np.arange(response - interval_ns, 0, -interval_ns) for response in response_ns if response > interval_ns]
    return np.concatenate([response_ns, *omitted])


def _percentiles(times_ns: Ints) -> dict[str, float]:
    return {name: float(np.quantile(times_ns, q)) / 1e6 for name, q in _QUANTILES.items()} if len(times_ns) else {}
