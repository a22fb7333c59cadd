"""Waiting until a server has finished what an earlier trial left."""

import time

from infscale.deployment.endpoint import Endpoint, answers
from infscale.errors import DeploymentError, ServerLostError


def drain(endpoint: Endpoint, *, patience_s: float = 15.0) -> None:
    """Wait until the server has finished what an earlier trial left.

    Wait until it answers and is idle, for at most ``patience_s``; a server that answers but stays busy is accepted.

    Raises:
        ServerLostError: it died, or does not answer within ``patience_s``.
    """
    end = time.monotonic() + patience_s
    while True:
        if endpoint.command and not endpoint.processes():
            raise ServerLostError(f"{endpoint.label} died", endpoint.log_tail())
        if _all_answer(endpoint):
            before = _cpu_seconds(endpoint)  # what answering cost is no rest of a trial
            time.sleep(0.05)
            idle = _cpu_seconds(endpoint) - before < 0.015  # one tick of the kernel's clock
            if idle or time.monotonic() > end:
                return
        elif time.monotonic() > end:
            raise ServerLostError(f"{endpoint.label} does not answer {patience_s:.0f} s after a trial")


def await_counts(endpoint: Endpoint, whole: float) -> None:
    """Wait until replicas have counted what they answered: a server may count when the answer has left."""
    end = time.monotonic() + 0.5
    while sum(endpoint.answered_by_replica()) < whole and time.monotonic() < end:
        time.sleep(0.02)


def _all_answer(endpoint: Endpoint) -> bool:
    """Return whether the endpoint and every server behind it answer: a cache may answer for a server that hangs."""
    try:
        return all(answers(one) for one in (endpoint, *endpoint.members))
    except DeploymentError:
        return False


def _cpu_seconds(endpoint: Endpoint) -> float:
    import psutil

    total = 0.0
    for process in endpoint.processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
