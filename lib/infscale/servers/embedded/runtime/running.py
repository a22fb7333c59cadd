"""Running a model in the event loop if it is known to be quick, else in a thread.

A small model takes 6–30 µs, and handing it to a thread and back costs ten times that. A slow model in the event loop
would hold up every other request. Runs are therefore timed by kind (signature, and size of the inputs as a power of
two). A kind first runs in a pool of threads; if that took less than :data:`TRIAL_SECONDS` it is tried in the event
loop, and stays there while it takes less than :data:`INLINE_SECONDS`. Times from the pool alone would not do: under
load they are mostly waits for the interpreter lock, and a quick model would never be found.

Decoding and encoding stay in the loop: they hold the interpreter lock, so that a thread would gain nothing.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.embedded.runtime import metrics
from infscale.servers.embedded.runtime.metrics import Metrics
from infscale.servers.embedded.runtime.servable import Signature
from infscale.servers.embedded.runtime.tensors import Array

INLINE_SECONDS = 0.001
"""Longest time that a run in the event loop may take."""
TRIAL_SECONDS = 0.05
"""Longest time in a thread after which a run is tried in the event loop."""
_RISE = 0.05
_CLIP = 2 * INLINE_SECONDS


class Runner:
    """Runs signatures for one event loop."""

    def __init__(self, counted: Metrics | None = None, threads: int = 4 * (os.cpu_count() or 1)) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._metrics = counted

    async def run(
        self, signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], timeout: float | None
    ) -> dict[str, Array]:
        """Return the model's outputs.

        Raises:
            StatusError: the kernel's, or DEADLINE_EXCEEDED after ``timeout`` seconds; the thread then still finishes.
        """
        size = sum(array.nbytes for array in inputs.values()).bit_length()
        if signature.seconds.get(size, 1.0) < INLINE_SECONDS:
            outputs, taken = _inline(signature, inputs, wanted, size)
        else:
            outputs, taken = await self._elsewhere(signature, inputs, wanted, timeout, size)
        if self._metrics is not None:
            self._metrics.count(metrics.GRAPH_RUNS)
            self._metrics.count(metrics.GRAPH_RUN_TIME, by=taken * 1e6)
        return outputs

    async def _elsewhere(
        self, signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], timeout: float | None, size: int
    ) -> tuple[dict[str, Array], float]:
        work = asyncio.get_running_loop().run_in_executor(self._pool, _in_thread, signature, inputs, wanted, size)
        try:
            return await asyncio.wait_for(work, timeout)
        except TimeoutError:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None


def _inline(
    signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], size: int
) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    try:
        outputs = signature.run(inputs, wanted)
    finally:
        taken = time.perf_counter() - started
        # Down at once, up slowly: a preempted process makes a quick model look slow now and then. Without the clip one
        # pause of 20 ms would send a quick model back to the threads, where under load it looks slow for ever.
        known = signature.seconds[size]
        signature.seconds[size] = taken if taken < known else known + _RISE * (min(taken, _CLIP) - known)
    return outputs, taken


def _in_thread(
    signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], size: int
) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    outputs = signature.run(inputs, wanted)
    taken = time.perf_counter() - started
    if size not in signature.seconds and taken < TRIAL_SECONDS:
        signature.seconds[size] = 0.0  # to be tried in the loop
    elif taken < signature.seconds.get(size, 0.0):
        signature.seconds[size] = taken
    return outputs, taken
