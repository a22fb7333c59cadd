"""The words of the project: names of factor levels as stored and as shown, and how numbers are written.

Tables and manifests hold the stored names ("rest"); figures and sentences show the others ("REST").
"""

import math

PROTOCOLS = ("rest", "grpc")
NAMES = {"rest": "REST", "grpc": "gRPC"}
"""How protocols are shown."""

HTTP = ("1.1", "2")
"""Versions of HTTP that carry REST."""

SCHEME = {"rest": "http", "grpc": "grpc"}
"""Schemes of the load engine's URLs without TLS."""

CONNECTIONS = {"rest": 256, "grpc": 8}
"""Default limits of connections at a time. REST opens as many keep-alive connections as it needs up to its limit; gRPC,
and REST on HTTP/2, keep this many."""

PICKS = ("round_robin", "power_of_two")
"""How a client chooses among replicas: in turn, or the less busy of two drawn at random."""

STREAMS = ("grpc", "sse", "lines", "chunks")
"""Ways in which one reply brings several messages: gRPC's own, server-sent events, lines (NDJSON), and chunks of
HTTP/1.1 or DATA frames of HTTP/2."""

STREAM_FAULTS = ("stream_error", "stream_cut", "stream_empty", "stream_few", "stream_many")
"""Statuses of streams that failed although the server said OK: a message is an error; the reply ended before its end
mark; it brought no message; fewer, or more, than were expected."""

STREAMS_ENDED = ("ok", "timeout")
"""Statuses of the streams whose gaps count: those that ended well, and those that were still going on at their timeout.
Of one that failed, the end is no sign of how fast it would have gone on."""

FRAMEWORK_NAMES = {"tfserving": "TF Serving API", "torchserve": "TorchServe", "triton": "Triton"}
"""How frameworks are shown. TensorFlow Serving is named after its API, because another server may answer it."""

OTHER = "endpoint"
"""The framework of a server that is known by its address alone."""

DEVICE, DEVICE_S = "device", 0.01
"""The model whose servers wait for each request, or batch, instead of computing; and for how long, s."""

CANNOT = "cannot conclude"


def number(value: float) -> str:
    """Return three significant digits without an exponent (1,230, 12.3, 0.0123); "n/a" for NaN, "∞" for infinity."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{round(value, 2 - exponent):,.{max(0, 2 - exponent)}f}"


def clock(seconds: float) -> str:
    """Return a duration in words: "1 h 05 min", "4 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


CLIENT_LIMITS = ("EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM")
"""Errors of system calls (errno) that say that the client ran out of something: a request that one of them ends has the
status ``client_<name>``."""
