"""The CPU time that encoding and decoding cost the client."""

import time
from collections.abc import Callable

import numpy as np

from infscale.deployment.endpoint import Endpoint, ask
from infscale.experiment.design.arm import Arm
from infscale.models.reference import inputs
from infscale.payloads.encoders import Payload

ROUNDS, ROUND_NS = 5, 20_000_000
"""How often a call is timed, and the CPU time of a round, ns."""


def encoded(endpoint: Endpoint, arm: Arm) -> tuple[Payload, Callable[[], object]]:
    """Return one request of an arm, and a function that encodes it once more; compression is not part of it."""
    name = endpoint.model
    rows = inputs(name)[np.arange(arm.batch) % len(inputs(name))]
    payload = endpoint.interface.payload(arm.protocol, name, rows, encoding=arm.encoding, batch=arm.batch)
    encode = endpoint.interface.encoders[arm.protocol][payload.encoding].encode
    return payload, lambda: encode(name, rows)


def decoding(endpoint: Endpoint, payload: Payload) -> Callable[[], object]:
    """Return a function that decodes one real answer to ``payload``."""
    answer = ask(endpoint, payload)
    return lambda: payload.decode(answer)


def cpu_us(call: Callable[[], object]) -> float:
    """Return the CPU time of one call in this process, µs: the median over rounds of at least 20 ms."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        start, count = time.process_time_ns(), 0
        while time.process_time_ns() - start < ROUND_NS:
            call()
            count += 1
        rounds.append((time.process_time_ns() - start) / count / 1e3)
    return round(float(np.median(rounds)), 2)
