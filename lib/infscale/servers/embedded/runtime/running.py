"""Running a model in the event loop if it is known to be quick, else in a thread.

A small model takes 6–30 µs, and handing it to a thread and back costs ten times that. A slow run in the event loop
would hold up every other request, and no time limit could end it. A signature whose time depends on values, such as one
with a loop, therefore always runs in a thread. Runs of the others are timed by kind: signature, and sizes of the inputs
as powers of two. A kind first runs in a pool of threads; if that took less than :data:`TRIAL_SECONDS` it is tried in
the event loop, and stays there while it takes less than :data:`INLINE_SECONDS`. Times from the pool alone would not do:
under load they are mostly waits for the interpreter lock, and a quick model would never be found.

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
from infscale.servers.embedded.runtime.servable import Signature, Sizes
from infscale.servers.embedded.runtime.tensors import Array

INLINE_SECONDS = 0.001
"""Longest time that a run in the event loop may take."""
TRIAL_SECONDS = 0.05
"""Longest time in a thread after which a run is tried in the event loop."""
_RISE = 0.05
_CLIP = 2 * INLINE_SECONDS
_MOST_KINDS = 1000  # of a signature: clients choose the sizes


def sizes_of(inputs: dict[str, Array]) -> Sizes:
    """Return what a run's time depends on, as powers of two: every dimension of the inputs, and the bytes of texts."""
    return tuple(tuple(map(int.bit_length, (*array.shape, _text_bytes(array)))) for array in inputs.values())


def _text_bytes(array: Array) -> int:
    return sum(map(len, array.ravel().tolist())) if array.dtype.kind == "O" else 0


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
        sizes = sizes_of(inputs)
        if signature.steady and signature.seconds.get(sizes, 1.0) < INLINE_SECONDS:
            outputs, taken = _inline(signature, inputs, wanted, sizes)
        else:
            outputs, taken = await self._elsewhere(signature, inputs, wanted, timeout, sizes)
        if self._metrics is not None:
            self._metrics.count(metrics.GRAPH_RUNS)
            self._metrics.count(metrics.GRAPH_RUN_TIME, by=taken * 1e6)
        return outputs

    async def _elsewhere(
        self, signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], timeout: float | None, sizes: Sizes
    ) -> tuple[dict[str, Array], float]:
        work = asyncio.get_running_loop().run_in_executor(self._pool, _in_thread, signature, inputs, wanted, sizes)
        try:
            return await asyncio.wait_for(work, timeout)
        except TimeoutError:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None


def _inline(
    signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], sizes: Sizes
) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    try:
        outputs = signature.run(inputs, wanted)
    finally:
        taken = time.perf_counter() - started
        # Down at once, up slowly: a preempted process makes a quick model look slow now and then. Without the clip one
        # pause of 20 ms would send a quick model back to the threads, where under load it looks slow for ever.
        known = signature.seconds.get(sizes, taken)
        signature.seconds[sizes] = taken if taken < known else known + _RISE * (min(taken, _CLIP) - known)
    return outputs, taken


def _in_thread(
    signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], sizes: Sizes
) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    outputs = signature.run(inputs, wanted)
    taken = time.perf_counter() - started
    if sizes not in signature.seconds and taken < TRIAL_SECONDS:
        if len(signature.seconds) >= _MOST_KINDS:
            signature.seconds.clear()
        signature.seconds[sizes] = 0.0  # to be tried in the loop
    elif taken < signature.seconds.get(sizes, 0.0):
        signature.seconds[sizes] = taken
    return outputs, taken
