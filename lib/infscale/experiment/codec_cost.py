"""The CPU time that encoding and decoding cost the client."""

import time
from collections.abc import Callable

import numpy as np

from infscale.deployment.endpoint import Endpoint, ask
from infscale.experiment.design.case import Case
from infscale.models.reference import inputs
from infscale.payloads.encoders import Payload


def _encoded(endpoint: Endpoint, case: Case) -> tuple[Payload, Callable[[], object]]:
    """One request of a case, and what makes it: compression apart."""
    arm, name = case.arm, endpoint.model
    rows = inputs(name)[np.arange(arm.batch) % len(inputs(name))]
    payload = endpoint.interface.payload(arm.protocol, name, rows, encoding=arm.encoding, batch=arm.batch)
    encode = endpoint.interface.encoders[arm.protocol][payload.encoding].encode
    return payload, lambda: encode(name, rows)


def _decoding(endpoint: Endpoint, payload: Payload) -> Callable[[], object]:
    """What decodes one real answer."""
    answer = ask(endpoint, payload)
    return lambda: payload.decode(answer)


def _cpu_us(call: Callable[[], object]) -> float:
    """CPU time of one call of this client, µs: the median of five rounds of at least 20 ms."""
    call()
    rounds = []
    for _ in range(5):
        start, count = time.process_time_ns(), 0
        while time.process_time_ns() - start < 20_000_000:
            call()
            count += 1
        rounds.append((time.process_time_ns() - start) / count / 1e3)
    return round(float(np.median(rounds)), 2)
