"""The outcome of a request as a small integer, so that it fits a preallocated array."""

import errno

from infscale.vocabulary import CLIENT_LIMITS, STREAM_FAULTS

PENDING, OK, TIMEOUT, REFUSED, RESET, BAD_RESPONSE, UNSENT = range(7)
STREAM_ERROR, STREAM_CUT, STREAM_EMPTY, STREAM_FEW, STREAM_MANY = range(7, 7 + len(STREAM_FAULTS))
_FIXED = ("pending", "ok", "timeout", "refused", "reset", "bad_response", "unsent", *STREAM_FAULTS)
_LIMIT, _HTTP, _GRPC = 500, 1000, 2000
_LIMITS = {getattr(errno, name): _LIMIT + i for i, name in enumerate(CLIENT_LIMITS)}

GRPC_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Names of gRPC's status codes by number (grpc/status.h)."""


def of_http(code: int) -> int:
    """Return the outcome of a response with HTTP status ``code``: OK for 2xx."""
    return OK if 200 <= code < 300 else _HTTP + code


def of_grpc(code: int) -> int:
    """Return the outcome of a response with ``grpc-status: code``; an unknown code is UNKNOWN, as in gRPC."""
    return OK if code == 0 else _GRPC + (code if 0 < code < len(GRPC_CODES) else 2)


def of_errno(number: int | None, otherwise: int) -> int:
    """Return the outcome of a request that the system's error ``number`` ended; ``otherwise`` if it is no limit."""
    return _LIMITS.get(number or 0, otherwise)


def limit_name(outcome: int) -> str:
    """Return the name of the limit of the client that an outcome stands for, such as "EMFILE"; "" if it is none."""
    return CLIENT_LIMITS[outcome - _LIMIT] if _LIMIT <= outcome < _HTTP else ""


def name(outcome: int) -> str:
    """Return the name of an outcome in the samples table."""
    if outcome < _LIMIT:
        return _FIXED[outcome]
    if outcome < _HTTP:
        return f"client_{limit_name(outcome)}"
    if outcome < _GRPC:
        return f"http_{outcome - _HTTP}"
    return f"grpc_{GRPC_CODES[outcome - _GRPC]}"


Finished = tuple[int, int, int, int]
"""A finished request: its token, outcome, bytes received, and time of the first byte, or of a stream's first message
(−1 if none came), ns since the start."""
