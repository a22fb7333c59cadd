"""A 12.8 MB gRPC body through the engine against plain ``sendall`` of the same bytes to a socket that discards them."""

import os
import socket
import time

import numpy as np

from infscale.load.engine.run import run
from infscale.load.null_server import NullServer

BODY_BYTES = 12_800_000
COUNT = 20
"""Bodies in one run, one after another."""
METHOD = "/bench.Null/Call"


def by_engine(server: NullServer, body: bytes) -> float:
    """Bytes of bodies per second, from the first send to the last answer; all are due at once, on one connection."""
    result = run(
        f"grpc://{server.grpc}{METHOD}",
        [body],
        [np.zeros(COUNT, np.int64)],
        [np.zeros(COUNT, np.int32)],
        timeout_s=30,
        connections=1,
    )
    rows = result.samples
    if not (rows["status"] == "ok").all():
        counts = rows["status"].value_counts().to_dict()
        raise RuntimeError(f"large bodies failed: {counts} {result.generator.error}")
    return COUNT * len(body) / float(rows["done_ns"].max() - rows["sent_ns"].min()) * 1e9


def by_sendall(server: NullServer, body: bytes) -> float:
    """Bytes per second until the receiver has read the last and closed."""
    host, _, port = server.discard.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        began = time.monotonic_ns()
        for _ in range(COUNT):
            sock.sendall(body)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
        return COUNT * len(body) / (time.monotonic_ns() - began) * 1e9


WAYS = {"ours": by_engine, "sendall": by_sendall}


def body() -> bytes:
    """The bytes; not zeros, so that nothing on the way can make them cheap."""
    return os.urandom(BODY_BYTES)
