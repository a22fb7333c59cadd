"""The ``model.py`` of the reference model ``stream``: a decoupled model that sends messages at known times.

It runs inside Triton's Python backend, where this project need not be installed, so that it imports nothing of it.
``execute`` only takes requests: were it to wait for their messages, one stream would hold up all others. A thread sends
the messages of all streams, in the order in which they are due; those that are late take turns.
"""

import heapq
import threading
import time
from typing import Any

import numpy as np

FIELDS = ("count", "size", "interval_us", "fail_after")
"""Inputs, one int64 each."""
_NS_PER_US = 1_000
_LOOK_NS = 50_000_000
"""How often a stream asks whether its client has gone, ns: asking takes as long as sending a small message."""


class _Stream:
    def __init__(self, request: Any, fields: dict[str, int]) -> None:
        self.request, self.sender = request, request.get_response_sender()
        self.start_ns = self.looked_ns = time.monotonic_ns()
        self.interval_ns = fields["interval_us"] * _NS_PER_US
        self.fail_after, self.count, self.size = fields["fail_after"], fields["count"], fields["size"]
        self.index = 0

    def due_ns(self) -> int:
        return self.start_ns + self.index * self.interval_ns


class TritonPythonModel:
    """Takes the plan of a stream as four numbers, and gives the output ``text`` in each of its messages."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the thread that sends; Triton calls this once for each instance."""
        import triton_python_backend_utils as backend  # type: ignore[import-not-found]  # exists in the backend only

        self.backend = backend
        self.changed = threading.Condition()
        self.queue: list[tuple[int, int, _Stream]] = []  # a heap: when the next message is due, number, stream
        self.requests, self.running = 0, True
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Take requests; a decoupled model returns nothing here."""
        for request in requests:
            tensors = {name: self.backend.get_input_tensor_by_name(request, name) for name in FIELDS}
            stream = _Stream(request, {name: int(tensor.as_numpy().ravel()[0]) for name, tensor in tensors.items()})
            with self.changed:
                self.requests += 1
                heapq.heappush(self.queue, (stream.due_ns(), self.requests, stream))
                self.changed.notify()

    def finalize(self) -> None:
        """End the thread; Triton calls this before it ends the process."""
        with self.changed:
            self.running = False
            self.changed.notify()
        self.thread.join()

    def _send(self) -> None:
        while True:
            with self.changed:
                while self.running and (not self.queue or self.queue[0][0] > time.monotonic_ns()):
                    left_ns = self.queue[0][0] - time.monotonic_ns() if self.queue else None
                    self.changed.wait(None if left_ns is None else max(0, left_ns) / 1e9)
                if not self.running:
                    return
                _, number, stream = heapq.heappop(self.queue)
            if self._next(stream):
                with self.changed:
                    heapq.heappush(self.queue, (max(stream.due_ns(), time.monotonic_ns()), number, stream))

    def _next(self, stream: _Stream) -> bool:
        """Send the next message of a stream, or its end; return whether more is to come."""
        final = self.backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        now = time.monotonic_ns()
        if now - stream.looked_ns > _LOOK_NS:
            stream.looked_ns = now
            if stream.sender.is_cancelled():
                stream.sender.send(flags=final)
                return False
        if stream.index == stream.fail_after:
            error = self.backend.TritonError(f"told to fail after {stream.index} messages")
            stream.sender.send(self.backend.InferenceResponse(error=error), flags=final)
            return False
        if stream.index == stream.count:  # no message at all
            stream.sender.send(flags=final)
            return False
        head = b"%06d %019d " % (stream.index, time.monotonic_ns())
        text = np.array([head.ljust(stream.size, b"x")], dtype=object)
        response = self.backend.InferenceResponse([self.backend.Tensor("text", text)])
        stream.index += 1
        last = stream.index == stream.count and stream.fail_after < stream.index
        stream.sender.send(response, flags=final if last else 0)
        return not last
