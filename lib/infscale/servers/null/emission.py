"""What the null server emits as a stream: which messages, when, in which form, and how the stream ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infscale.errors import ConfigError, one_of

WAYS = ("sse", "chunks", "lines")
"""How a message goes over REST: as a server-sent event, as a chunk (HTTP/2: as DATA frames), as a line."""
ENDINGS = ("whole", "error", "error_message", "cut", "stalled", "endless")
"""How a stream ends; see :class:`Emission`."""
IDENTITY_BYTES = 16
"""Length of what each message begins with, bytes: ``b"%08d %06d "`` of its request and its index, both from 0."""

CONTENT_TYPES = {"sse": "text/event-stream", "chunks": "application/octet-stream", "lines": "application/x-ndjson"}
ERROR = "the null server was told to fail"
"""Text of the error of a stream that ends in one."""
GRPC_INTERNAL = 13
"""The gRPC status of a stream that ends in an error."""

_FRAMES = {"sse": (b"data: ", b"\n\n"), "chunks": (b"", b""), "lines": (b"", b"\n")}


@dataclass(frozen=True)
class Emission:
    """A plan for the stream that answers each request.

    Over gRPC (a streaming call, whether the client's side is one message or a half-closed stream) a message is a gRPC
    message, over REST what ``way`` says. A chunk that is longer than the frames that an HTTP/2 client takes (16 kB, if
    it says nothing else) comes in several.

    Attributes:
        offsets_ns: when each message is due, ns after the arrival of its request, ascending; 0 throughout is as fast
            as the server can, and no offsets are a stream without messages. A message that the client's windows or a
            full socket hold up goes late; its stamp is that of the write.
        size: bytes of a message's content, without what frames it; several sizes are taken in turn.
        way: "sse", "chunks" or "lines"; over REST only.
        ending: "whole" ends as it should. After the last offset, "error" ends gRPC with the status INTERNAL, and REST
            with a message ``{"error": …}`` and a sound end; "error_message" ends gRPC with a message that has a text in
            field 1 and with the status OK, as Triton does, and REST as "error"; "cut" closes the connection of HTTP/1.1
            and resets the stream of HTTP/2; "stalled" sends nothing more, and "endless" goes on at the last interval.
        per_write: most messages that go into one write if they are due when it is made; they have its stamp.
    """

    offsets_ns: Sequence[int] = ()
    size: int | Sequence[int] = 32
    way: str = "sse"
    ending: str = "whole"
    per_write: int = 1

    def __post_init__(self) -> None:
        one_of("way", self.way, WAYS)
        one_of("ending", self.ending, ENDINGS)
        steps = zip((0, *self.offsets_ns), self.offsets_ns, strict=False)
        if any(after < before for before, after in steps):
            raise ConfigError("offsets_ns must ascend; accepted: 0 or more, each at least the one before it")
        if not self.sizes or min(self.sizes) < IDENTITY_BYTES:
            raise ConfigError(
                f"size={self.size!r}: a message begins with who it is; accepted: {IDENTITY_BYTES} or more"
            )
        if self.per_write < 1:
            raise ConfigError(f"per_write={self.per_write} writes nothing; accepted: 1 or more")
        if self.ending == "endless" and not len(self.offsets_ns):
            raise ConfigError("an endless stream without offsets_ns has no interval; accepted: at least one")

    def settings(self) -> dict[str, object]:
        """Return the fields as JSON can hold them."""
        offsets = [int(offset) for offset in self.offsets_ns]
        return {**vars(self), "offsets_ns": offsets, "size": list(self.sizes)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the sizes of messages that are taken in turn, bytes."""
        return (self.size,) if isinstance(self.size, int) else tuple(self.size)

    @property
    def content_type(self) -> str:
        """Return the content type of the stream over REST."""
        return CONTENT_TYPES[self.way]

    def due_ns(self) -> Callable[[int], int]:
        """Return a function from a message's index to when it is due, ns after its request; −1 beyond the last."""
        offsets, count = tuple(map(int, self.offsets_ns)), len(self.offsets_ns)
        if self.ending != "endless":
            return lambda index: offsets[index] if index < count else -1
        step = offsets[-1] - offsets[-2] if count > 1 else offsets[-1]
        return lambda index: offsets[index] if index < count else offsets[-1] + (index - count + 1) * step

    def messages(self, grpc: bool) -> Callable[[int, int], bytes]:
        """Return a function from the numbers of a request and a message to the framed message, over gRPC or REST."""
        parts = []
        for size in self.sizes:
            before, after = (b"\0" + size.to_bytes(4, "big"), b"") if grpc else _FRAMES[self.way]
            parts.append((before.replace(b"%", b"%%") + b"%08d %06d ", b"x" * (size - IDENTITY_BYTES) + after))
        kinds = len(parts)

        def message(request: int, index: int) -> bytes:
            before, after = parts[index % kinds]
            return before % (request % 10**8, index % 10**6) + after

        return message

    def error(self, grpc: bool) -> bytes:
        """Return the framed message that tells an error; empty where a status does."""
        if not grpc:
            before, after = _FRAMES[self.way]
            return before + b'{"error": "%b"}' % ERROR.encode() + after
        if self.ending != "error_message":
            return b""
        message = b"\x0a" + bytes([len(ERROR)]) + ERROR.encode()
        return b"\0" + len(message).to_bytes(4, "big") + message


def evenly(count: int, interval_ns: int, first_ns: int = 0) -> tuple[int, ...]:
    """Return the offsets of ``count`` messages, ns: the first after ``first_ns``, the others at equal intervals."""
    return tuple(first_ns + index * interval_ns for index in range(count))


def identity(content: bytes) -> tuple[int, int]:
    """Return the numbers of the request and the message, both from 0, from a message's content."""
    return int(content[:8]), int(content[9:15])
