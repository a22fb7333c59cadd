"""Batching: the rows of requests for one signature that come together are joined, and run as one.

Everything happens in the event loop, so that no locks are needed. Each signature has a queue of batches, of which the
last is open. A batch is closed when it is full, or when a thread is free and its first request has waited long enough;
as many batches run at a time as there are threads. Queues take turns.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.config import Batching
from infscale.servers.embedded.runtime import metrics
from infscale.servers.embedded.runtime.joining import Inputs, join, split
from infscale.servers.embedded.runtime.metrics import Metrics
from infscale.servers.embedded.runtime.running import Runner
from infscale.servers.embedded.runtime.servable import Signature
from infscale.servers.embedded.runtime.tensors import Array


@dataclass
class _Task:
    inputs: Inputs
    size: int
    deadline: float
    done: asyncio.Future[dict[str, Array]]
    since: float


@dataclass
class _Batch:
    tasks: list[_Task] = field(default_factory=list)
    size: int = 0

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.size += task.size


class Batcher:
    """Runs signatures for one event loop, in batches."""

    def __init__(self, runner: Runner, options: Batching, counted: Metrics | None = None) -> None:
        self._runner = runner
        self._options = options
        self._metrics = counted
        self._free = options.num_batch_threads
        self._queues: dict[Signature, list[_Batch]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None

    async def run(
        self, signature: Signature, inputs: Inputs, wanted: Sequence[str], timeout: float | None
    ) -> dict[str, Array]:
        """Return the model's outputs for these inputs.

        A request for only some outputs is not batched.

        Raises:
            StatusError: INVALID_ARGUMENT if the inputs are not rows or are too many, UNAVAILABLE if the queue is full,
                RESOURCE_EXHAUSTED if the time limit ended in the queue, or what the batch ended with.
        """
        if wanted and set(wanted) != set(signature.outputs):
            return await self._runner.run(signature, inputs, wanted, timeout)
        now = time.monotonic()
        done: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()
        deadline = now + timeout if timeout is not None else float("inf")
        self._enqueue(signature, _Task(inputs, _rows(inputs), deadline, done, now))
        self._dispatch()
        return await done

    def _enqueue(self, signature: Signature, task: _Task) -> None:
        most = self._options.max_batch_size
        if task.size > most:
            raise invalid(f"Task size {task.size} is larger than maximum input batch size {most}")
        queue = self._queues.setdefault(signature, [_Batch()])
        if queue[-1].size + task.size > most:
            if len(queue) >= self._options.max_enqueued_batches:
                raise StatusError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(queue)} batches enqueued and max_enqueued_batches is {self._options.max_enqueued_batches}",
                )
            queue.append(_Batch())
        queue[-1].add(task)

    def _dispatch(self) -> None:
        """Start every batch that is due while a thread is free, and come back when the next one is due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = float("inf")
        progress = True
        while self._free and progress:  # one batch of each queue in turn
            progress, due = False, float("inf")
            for signature in list(self._queues):
                wait = self._wait(self._queues[signature])
                if wait <= 0 and self._free:
                    self._start(signature)
                    progress = True
                else:
                    due = min(due, wait)
        if self._free and due < float("inf"):
            self._alarm = asyncio.get_running_loop().call_later(due, self._dispatch)

    def _wait(self, queue: list[_Batch]) -> float:
        """Return the seconds until a queue's first batch is due; 0 or less if it is due now."""
        if len(queue) > 1 or queue[0].size >= self._options.max_batch_size:
            return 0.0
        return queue[0].tasks[0].since + self._options.batch_timeout_micros / 1e6 - time.monotonic()

    def _start(self, signature: Signature) -> None:
        queue = self._queues.pop(signature)
        batch = queue.pop(0)
        if queue:
            self._queues[signature] = queue  # at the end: the other queues' turn
        self._free -= 1
        task = asyncio.get_running_loop().create_task(self._process(signature, batch))
        self._running.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._running.discard)

    async def _process(self, signature: Signature, batch: _Batch) -> None:
        try:
            outputs = await self._outputs(signature, batch)
        except Exception as error:  # of whatever kind: it belongs to the requests
            for task in batch.tasks:
                if not task.done.cancelled():
                    task.done.set_exception(error)
        else:
            for task, each in zip(batch.tasks, outputs, strict=True):
                if not task.done.cancelled():
                    task.done.set_result(each)
        finally:
            self._free += 1
            self._dispatch()

    async def _outputs(self, signature: Signature, batch: _Batch) -> list[dict[str, Array]]:
        now = time.monotonic()
        self._count(batch, now)
        deadline = max(task.deadline for task in batch.tasks)
        if deadline <= now:
            raise StatusError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
        joined = join([task.inputs for task in batch.tasks], signature, self._padded_size(batch.size), self._options)
        outputs = await self._runner.run(signature, joined, (), None if deadline == float("inf") else deadline - now)
        return split(outputs, [task.size for task in batch.tasks], self._padded_size(batch.size))

    def _padded_size(self, size: int) -> int:
        return next((allowed for allowed in self._options.allowed_batch_sizes if allowed >= size), size)

    def _count(self, batch: _Batch, now: float) -> None:
        if self._metrics is not None:
            self._metrics.count(metrics.WRAPPED_RUNS)
            for task in batch.tasks:
                waited = (now - task.since) * 1e6
                self._metrics.sample(metrics.QUEUING_LATENCY, waited, self._options.thread_pool_name)


def _rows(inputs: Inputs) -> int:
    shapes = [np.shape(array) for array in inputs.values()]
    if not shapes:
        raise invalid("Batching session Run() must have at least one input tensor")
    if any(not shape for shape in shapes):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    if any(shape[0] != shapes[0][0] for shape in shapes):
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return int(shapes[0][0])
