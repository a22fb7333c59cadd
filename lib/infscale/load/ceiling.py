"""The load engine's own ceiling: the most requests/s that a server which does nothing answers it.

A server whose throughput comes near the ceiling may be held back by the generator instead of by itself.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from infscale.errors import EngineError
from infscale.load.engine import run as engine
from infscale.load.null_server import null_server
from infscale.vocabulary import CONNECTIONS, SCHEME

SIZES = (256, 16_384, 1_048_576)
"""Sizes of a request's body at which the ceiling is measured, bytes; those of the reference models lie between."""
LEAST_S = 0.5
"""Shortest load that counts as a measurement, s."""
FIRST, MOST_BYTES = 2_000, 1 << 30
"""Requests of the first load, and most bytes of bodies that a load sends."""

Points = Sequence[tuple[float, float]]
"""(body bytes, requests/s) by rising size."""


def measure(protocols: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Measure the ceiling of each protocol at each of :data:`SIZES`, with requests that are all due at once.

    Takes about 2 s for each point. On few cores the null server shares them with the engine, as a real server does.

    Returns:
        Body bytes and requests/s of each point, by protocol.

    Raises:
        EngineError: a request failed.
    """
    with null_server() as server:
        addresses = {"rest": server.rest, "grpc": server.grpc}
        return {
            protocol: [(float(size), round(_most(protocol, addresses[protocol], size), 1)) for size in SIZES]
            for protocol in protocols
        }


def _most(protocol: str, address: str, size: int) -> float:
    """Return the requests/s of a load that takes at least :data:`LEAST_S`, found by sending more and more requests."""
    count = min(FIRST, MOST_BYTES // (8 * size))
    while True:
        seconds = _seconds(protocol, address, size, count)
        if seconds >= LEAST_S or count * size >= MOST_BYTES:
            return count / seconds
        count = min(int(count * min(8, 1.5 * LEAST_S / seconds)) + 1, MOST_BYTES // size)


def _seconds(protocol: str, address: str, size: int, count: int) -> float:
    """Return the time from the first send to the last response of ``count`` requests that are all due at once, s."""
    url = f"{SCHEME[protocol]}://{address}/infscale.Null/Call"
    schedule, choice = np.zeros(count, np.int64), np.zeros(count, np.int32)
    most = CONNECTIONS[protocol]
    result = engine.run(
        url, [bytes(size)], [schedule], [choice], timeout_s=60, connections=most, open_first=min(8, most)
    )
    rows = result.samples
    bad = rows["status"] != "ok"
    if bad.any():
        raise EngineError(f"the null server's ceiling: {int(bad.sum())} of {count} requests of {size} bytes failed")
    return float(rows["done_ns"].max() - rows["sent_ns"].min()) / 1e9


def at(points: Points, body_bytes: float) -> float:
    """Return the ceiling for a body size, requests/s.

    It is interpolated on logarithmic scales, constant below the smallest size and ∝ 1/size above the largest.
    """
    sizes, rates = np.array(points, dtype=np.float64).T
    if body_bytes > sizes[-1]:
        return float(rates[-1] * sizes[-1] / body_bytes)
    return float(np.exp(np.interp(np.log(max(body_bytes, 1)), np.log(sizes), np.log(rates))))


def of_payload(ceilings: Mapping[str, Points], protocol: str, bodies: Sequence[bytes]) -> float | None:
    """Return the ceiling for a pool of bodies by their mean size, requests/s; None if the protocol was not measured."""
    points = ceilings.get(protocol)
    return at(points, float(np.mean([len(body) for body in bodies]))) if points else None
