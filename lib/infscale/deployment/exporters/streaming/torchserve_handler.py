"""The handler of the reference model ``stream``: it sends messages at known times, as intermediate responses.

It runs inside TorchServe's worker, where this project is not installed, so that it imports nothing of it. A worker
handles one request at a time, and so serves one stream. The last message is what ``handle`` returns: a stream of one is
an ordinary answer, and TorchServe has none without a message, so that no messages are one that is empty.

Over gRPC the frontend (0.12) wants the header ``ts_stream_next`` with every answer to ``StreamPredictions``: without
it, as of a handler that never streams, it stops with a NullPointerException and starts the worker anew.
"""

import json
import time
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

FIELDS = ("count", "size", "interval_us", "fail_after")
"""Keys of a request's JSON, a whole number each."""
_NS_PER_US = 1_000


class Handler:
    """Answers one request at a time with a stream."""

    def initialize(self, context: Any) -> None:
        """Do nothing: the model has no weights."""

    def handle(self, rows: list[dict[str, Any]], context: Any) -> list[Any]:
        """Send all messages of a stream but the last, and return that one."""
        start = time.monotonic_ns()
        count, size, interval_us, fail_after = _plan(rows[0])
        context.set_response_content_type(0, "application/octet-stream")
        if "data" in rows[0]:  # over gRPC
            context.set_response_header(0, "ts_stream_next", "false")  # until an intermediate response says "true"
        for index in range(count):
            if index == fail_after:
                break
            left = start + index * interval_us * _NS_PER_US - time.monotonic_ns()
            if left > 0:
                time.sleep(left / 1e9)
            message = (b"%06d %019d " % (index, time.monotonic_ns())).ljust(size, b"x")
            if index == count - 1 and fail_after != count:
                return [message]
            send_intermediate_predict_response([message], context.request_ids, "a message", 200, context)
        if fail_after >= 0:
            raise RuntimeError(f"told to fail after {fail_after} messages")
        return [b""]


def _plan(row: dict[str, Any]) -> tuple[int, ...]:
    body = row.get("body", row.get("data"))
    try:
        fields = body if isinstance(body, dict) else json.loads(bytes(body or b""))
        return tuple(int(fields[name]) for name in FIELDS)
    except (KeyError, TypeError, ValueError) as error:
        raise PredictionException(f"expected JSON with whole numbers for {', '.join(FIELDS)}: {error}", 400) from error
