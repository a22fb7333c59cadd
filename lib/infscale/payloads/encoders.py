"""Encodings that servers take, and pools of request bodies that are encoded before the load begins.

An encoding is how a tensor becomes bytes. An :class:`Interface` lists the encodings that one kind of server takes over
each protocol; the functions that encode and decode are in :mod:`infscale.payloads.codecs`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from infscale.errors import ConfigError, one_of
from infscale.models.reference import Array, Rows
from infscale.models.stream import StreamPlan
from infscale.payloads.codecs import Decode, Encode
from infscale.vocabulary import PROTOCOLS

JSON, OCTETS = "application/json", "application/octet-stream"
"""Content types."""
FLOATS = ("float32",)
NUMBERS = ("float32", "uint8")
FILES_TOO = ("float32", "uint8", "bytes")
"""Kinds of rows that an encoding may carry, as reference models' ``dtype``: "bytes" is a file in each row."""


@dataclass(frozen=True)
class Stream:
    """The requests of one protocol that a server answers with streams, and how their messages come.

    Attributes:
        path: HTTP path or gRPC method; ``{model}`` is replaced by the model's name.
        content_type: of an HTTP body; None for gRPC.
        way: "grpc", "sse" (server-sent events) or "chunks" (each chunk is a message).
        encode: takes a model's name and a plan, and returns a request body.
        content: takes a message as it comes (gRPC: serialised; SSE: an event's data) and returns what the model sent.
        errors: matches the beginning of a message, as it comes, by which the server tells that a stream failed, up to
            the text of the reason; None where the protocol's own status, or a broken connection, tells it.
        done: data of the event that ends a stream and is no message, such as ``[DONE]``; b"" for none.
        needs_done: whether a stream without it is cut short.
    """

    path: str
    content_type: str | None
    way: str
    encode: Callable[[str, StreamPlan], bytes]
    content: Callable[[bytes], bytes]
    errors: re.Pattern[bytes] | None = None
    done: bytes = b""
    needs_done: bool = False


@dataclass(frozen=True)
class Payload:
    """A pool of request bodies for one model, protocol and encoding.

    Attributes:
        protocol: "rest" or "grpc".
        encoding: its name in the server's :class:`Interface`; of streams the way in which messages come.
        path: HTTP path, or ``/package.Service/Method`` for gRPC.
        bodies: HTTP bodies, or serialised protobuf messages without the gRPC frame.
        decode: body of an answer → float32 array of shape (batch, …).
        headers: in addition to those that the protocol itself needs.
        stream: how the messages of an answer come; None for one reply.
        messages: how many a whole stream has; 0 for any number above none.
    """

    protocol: str
    encoding: str
    path: str
    bodies: list[bytes]
    decode: Decode
    headers: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    messages: int = 0


def dtype_of(rows: Rows) -> str:
    """Return the kind of some rows as a reference model's ``dtype`` tells it."""
    return "bytes" if rows.dtype.kind == "S" else rows.dtype.name


def no_headers(rows: Rows) -> dict[str, str]:
    """Return no headers: most encodings need none."""
    return {}


@dataclass(frozen=True)
class Encoder:
    """The requests of one encoding that one kind of server takes.

    Attributes:
        path: HTTP path or gRPC method; ``{model}`` is replaced by the model's name.
        content_type: of an HTTP body; None for gRPC.
        encode, decode: functions of a module, so that another process can import them by name.
        headers: rows of one body → headers that every body of that shape needs.
        dtypes: kinds of rows that it can carry.
    """

    path: str
    content_type: str | None
    encode: Encode
    decode: Decode
    headers: Callable[[Rows], dict[str, str]] = no_headers
    dtypes: tuple[str, ...] = FLOATS


@dataclass(frozen=True)
class Interface:
    """The requests that one kind of server takes.

    Attributes:
        name: the server's, for messages.
        encoders: by protocol, then by encoding. The first encoding of a protocol is its default: F0 uses it.
        http: versions of HTTP that its REST speaks in clear text; "2" if at least one implementation does.
        gzip: protocols over which it decompresses requests.
        message_bytes: largest message that it takes as this project deploys it, bytes.
        one_file: whether a request carries one file at most, as its bodies have no frame between files.
        streams: by protocol, for the reference model ``stream``; empty for a server that has no streams.
    """

    name: str
    encoders: Mapping[str, Mapping[str, Encoder]] = field(default_factory=dict)
    http: Sequence[str] = ("1.1",)
    gzip: Collection[str] = PROTOCOLS
    message_bytes: int = 64 << 20
    one_file: bool = False
    streams: Mapping[str, Stream] = field(default_factory=dict)

    def encodings(self, protocol: str, dtype: str = "float32") -> dict[str, Encoder]:
        """Return the encodings over ``protocol`` that carry rows of a model's ``dtype``, the default first."""
        return {name: one for name, one in self.encoders.get(protocol, {}).items() if dtype in one.dtypes}

    def encoding(self, protocol: str, dtype: str = "float32", name: str = "") -> str:
        """Return the encoding called ``name``, or the default one, for such rows.

        Raises:
            ConfigError: the server does not take the protocol, or not that encoding of such rows.
        """
        one_of("protocol", protocol, [known for known in PROTOCOLS if self.encoders.get(known)])
        accepted = self.encodings(protocol, dtype)
        if not accepted or (name and name not in accepted):
            raise ConfigError(
                f"encoding={name!r} is not one in which {self.name} takes rows of {dtype} over {protocol}; "
                f"accepted: {', '.join(sorted(accepted)) or 'none'}"
            )
        return name or next(iter(accepted))

    def payload(self, protocol: str, model: str, rows: Rows, *, encoding: str = "", batch: int = 1) -> Payload:
        """Encode ``rows`` of shape (n, …) for the model called ``model`` into ``n // batch`` request bodies.

        Raises:
            ConfigError: the protocol or encoding is not taken, or ``rows`` are fewer than ``batch``.
        """
        encoding = self.encoding(protocol, dtype_of(rows), encoding)
        if not 1 <= batch <= len(rows):
            raise ConfigError(f"batch={batch} cannot be cut from {len(rows)} rows; accepted: 1 to {len(rows)}")
        encoder = self.encoders[protocol][encoding]
        groups = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
        headers = {"content-type": encoder.content_type} if encoder.content_type else {}
        headers |= encoder.headers(groups[0])
        bodies = [encoder.encode(model, group) for group in groups]
        return Payload(protocol, encoding, encoder.path.format(model=model), bodies, encoder.decode, headers)

    def stream(self, protocol: str, model: str, plan: StreamPlan) -> Payload:
        """Return the request that the model called ``model`` answers with the stream of ``plan``.

        Raises:
            ConfigError: the server has no streams, or not over this protocol.
        """
        if not self.streams:
            raise ConfigError(f"{self.name} has no streaming predictions; accepted: requests with one reply")
        one = self.streams[one_of("protocol", protocol, self.streams)]
        headers = {"content-type": one.content_type} if one.content_type else {}
        bodies = [one.encode(model, plan)]
        path = one.path.format(model=model)
        return Payload(protocol, one.way, path, bodies, _no_rows, headers, stream=one, messages=plan.count)


def _no_rows(body: bytes) -> Array:
    raise ConfigError("a stream has messages and no rows; accepted: Payload.stream.content, of each message")
