"""The outcome of a request as a small integer, so that it fits a preallocated array."""

PENDING, OK, TIMEOUT, REFUSED, RESET, BAD_RESPONSE, UNSENT = range(7)
_FIXED = ("pending", "ok", "timeout", "refused", "reset", "bad_response", "unsent")
_HTTP, _GRPC = 1000, 2000

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


def name(outcome: int) -> str:
    """Return the name of an outcome in the samples table."""
    if outcome < _HTTP:
        return _FIXED[outcome]
    if outcome < _GRPC:
        return f"http_{outcome - _HTTP}"
    return f"grpc_{GRPC_CODES[outcome - _GRPC]}"


Finished = tuple[int, int, int, int]
"""A finished request: its token, outcome, bytes received, and time of the first byte (ns since the start)."""
