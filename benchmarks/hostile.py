"""Every parser of this project that faces a network or a file, as a function of any bytes.

Each must end soon and take little memory, and may raise only the errors that its callers catch. The tests feed them
from Hypothesis, ``python -m benchmarks.fuzz`` a million cases each.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from infscale.deployment import prometheus
from infscale.errors import ConfigError, DataError
from infscale.experiment.usage import containers
from infscale.load import trace
from infscale.load.engine import job
from infscale.load.engine.interfaces import Codec, Messages, Streaming
from infscale.load.engine.wire import http1, http2, tls
from infscale.load.engine.wire.http2_frames import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame
from infscale.load.engine.wire.streams.http1 import StreamHttp1
from infscale.load.engine.wire.streams.http2 import StreamHttp2
from infscale.payloads.streams import JSON_ERRORS, TRITON_ERRORS
from infscale.records import manifest
from infscale.records import samples as rows
from infscale.records.imported import guidellm, k6
from infscale.servers.asgi import framing
from infscale.servers.asgi.status import StatusError
from infscale.servers.embedded.api import jsonin, jsonvalues, rest
from infscale.servers.null import http1 as null_http1
from infscale.servers.null import http2 as null_http2

MOST_OUT = 64
"""Most bytes that a codec may keep to send for each byte that it got, beside a few kilobytes."""

_CONTEXT = tls.context(["h2"], insecure=True)
_SETTINGS = frame(SETTINGS, 0, 0)
_REST = http2.encode_rest("POST", "a", "/", {}, b"body")
_GRPC = http2.encode_grpc("a", "/p.S/M", {}, b"body")
_STREAM_HEADS = {
    1: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    2: _SETTINGS + frame(HEADERS, END_HEADERS, 1, b"\x88"),  # :status 200
}
_TYPES = (1, 3, 7, 9, 10)  # float, int32, string, int64, bool, by their numbers in TensorFlow


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield the rest of ``data`` in pieces, whose size its first byte says."""
    size = data[0] + 1 if data else 1
    for at in range(1, len(data), size):
        yield data[at : at + size]


def _reply(codec: Codec, data: bytes, requests: int) -> None:
    finished: list[tuple[int, int, int, int]] = []
    for token in range(requests):
        codec.send(0, token)
    kept = 0
    for part in _pieces(data):
        codec.receive(part, 1, finished)
        kept += sum(map(len, codec.out))
        codec.out.clear()
        if codec.closing:
            break
    codec.end(finished)
    tokens = [token for token, *_ in finished] + [token for token, _ in codec.refused]
    assert sorted(tokens) == list(range(requests)), "a request has no outcome, or two"
    assert kept <= MOST_OUT * len(data) + 8192, f"{kept} bytes to send for {len(data)}"


def http1_reply(data: bytes) -> None:
    """Read a reply by HTTP/1.1."""
    _reply(http1.Http1([http1.encode("POST", "/", {"host": "a"}, b"body")]), data, 1)


def _begun(grpc: bool) -> http2.Http2:
    codec = http2.Http2([_GRPC if grpc else _REST], grpc=grpc)
    codec.start()
    codec.receive(_SETTINGS, 0, [])
    return codec


def http2_reply(data: bytes) -> None:
    """Read replies by HTTP/2."""
    _reply(_begun(False), data, 2)


def grpc_reply(data: bytes) -> None:
    """Read replies by gRPC."""
    _reply(_begun(True), data, 2)


def _stream(way: str, version: int, data: bytes) -> None:
    """Read a reply as a stream, its head included; then its body alone, behind a sound head and in sound frames."""
    for framed in (False, True):
        kept = Messages(2)
        streaming = Streaming(way, 2, b"[DONE]", True, TRITON_ERRORS if way == "grpc" else JSON_ERRORS)
        codec: StreamHttp1 | StreamHttp2
        if version == 1:
            codec = StreamHttp1([http1.encode("POST", "/", {"host": "a"}, b"body")], streaming, kept)
        else:
            codec = StreamHttp2([_GRPC if way == "grpc" else _REST], streaming, kept)
            codec.start()
            codec.receive(_SETTINGS, 0, [])
        if not framed:
            _reply(codec, data, version)
        else:
            parts = [b"%x\r\n%s\r\n" % (len(p), p) if version == 1 else frame(DATA, 0, 1, p) for p in _pieces(data)]
            _reply(codec, b"\xff" + _STREAM_HEADS[version] + b"".join(parts), version)
        assert sum(kept.bytes) <= len(data) + 2, "messages are larger than what came"
        assert all(count <= len(data) for count in map(len, (kept.at, kept.index))), "more messages than bytes"


def event_stream(data: bytes) -> None:
    """Read server-sent events by HTTP/1.1."""
    _stream("sse", 1, data)


def event_stream_http2(data: bytes) -> None:
    """Read server-sent events by HTTP/2."""
    _stream("sse", 2, data)


def line_stream(data: bytes) -> None:
    """Read lines by HTTP/1.1."""
    _stream("lines", 1, data)


def chunk_stream(data: bytes) -> None:
    """Read chunks by HTTP/1.1."""
    _stream("chunks", 1, data)


def grpc_stream(data: bytes) -> None:
    """Read gRPC streams."""
    _stream("grpc", 2, data)


def tls_handshake(data: bytes) -> None:
    """Read a server's side of a TLS handshake."""
    codec = tls.Tls(http1.Http1([b""]), _CONTEXT, "a")
    codec.start()
    _reply(codec, data, 0)


def http1_request(data: bytes) -> None:
    """Read requests by HTTP/1.1, as the null server does."""
    server = null_http1.Http1Server(null_http1.replies(b"reply"), {})
    _requests(server, data)


def http2_request(data: bytes) -> None:
    """Read requests by HTTP/2, as the null server does."""
    _requests(null_http2.Http2Server(b"reply"), b"\xff" + PREFACE + data[1:])


def _requests(server: null_http1.Http1Server | null_http2.Http2Server, data: bytes) -> None:
    for part in _pieces(data):
        rest_of_it, found = part, list[int]()
        while rest_of_it and not server.closing:
            if server.skip:
                taken = min(server.skip, len(rest_of_it))
                server.skip -= taken
                rest_of_it = rest_of_it[taken:]
                if not server.skip:
                    server.skipped(found)
            else:
                server.receive(rest_of_it, found)
                rest_of_it = b""
        for token in found:
            server.reply(token)
        server.out.clear()


def predict_json(data: bytes) -> None:
    """Read the embedded server's JSON."""
    document = jsonin.parse(data)
    jsonin.signature_name(document)
    for value in document.values():
        for dtype in _TYPES:
            try:
                jsonvalues.whole(value, dtype)
            except StatusError:
                continue


def rest_path(data: bytes) -> None:
    """Read the embedded server's paths."""
    rest.route("POST", data.decode("latin-1"))


def grpc_message(data: bytes) -> None:
    """Read a request's gRPC framing, plain and compressed."""
    framing.unframe(data, b"gzip" if data[:1] == b"\1" else b"")


def counters(data: bytes) -> None:
    """Read a server's page of counters."""
    prometheus.parse(data.decode(errors="replace"))


def container(data: bytes) -> None:
    """Read a line of Docker's statistics."""
    containers.parse(data.decode(errors="replace"))


def url(data: bytes) -> None:
    """Read a URL."""
    job.parse(data.decode(errors="replace"))


def run_manifest(data: bytes) -> None:
    """Read a run's manifest."""
    manifest.decode(data, manifest.RunManifest, "run.json")


def trial_manifest(data: bytes) -> None:
    """Read a trial's manifest."""
    manifest.decode(data, manifest.TrialManifest, "trial.json")


def _in_file(data: bytes, read: Callable[[Path], object]) -> None:
    with tempfile.NamedTemporaryFile(suffix=".csv", dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        read(Path(file.name))


def arrival_trace(data: bytes) -> None:
    """Read a file of arrival times."""
    _in_file(data, trace.read)


def sample_rows(data: bytes) -> None:
    """Read a file of rows."""
    _in_file(data, rows.read)


def guidellm_report(data: bytes) -> None:
    """Read a result file of guidellm."""
    _in_file(data, guidellm.read)


def k6_points(data: bytes) -> None:
    """Read a result file of k6."""
    _in_file(data, k6.read)


TARGETS: dict[Callable[[bytes], None], tuple[type[Exception], ...]] = {
    http1_reply: (),
    http2_reply: (),
    grpc_reply: (),
    event_stream: (),
    event_stream_http2: (),
    line_stream: (),
    chunk_stream: (),
    grpc_stream: (),
    tls_handshake: (),
    http1_request: (),
    http2_request: (),
    predict_json: (StatusError,),
    rest_path: (StatusError,),
    grpc_message: (StatusError,),
    counters: (ValueError,),
    container: (ValueError,),
    url: (ConfigError,),
    run_manifest: (DataError,),
    trial_manifest: (DataError,),
    arrival_trace: (DataError,),
    sample_rows: (DataError,),
    guidellm_report: (DataError,),
    k6_points: (DataError,),
}
"""The parsers, and the errors that they may raise."""


def feed(target: Callable[[bytes], None], data: bytes) -> None:
    """Give a parser some bytes; an error that its callers do not expect passes through."""
    with suppress(*TARGETS[target]):
        target(data)
