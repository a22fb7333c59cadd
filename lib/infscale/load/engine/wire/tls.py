"""TLS around a codec, sans I/O: what the inner codec sends is encrypted, what arrives is decrypted for it."""

import ssl
from collections.abc import Sequence

from infscale.load.engine.interfaces import Codec
from infscale.load.engine.status import Finished

_CHUNK = 1 << 18
RECORD_BYTES, RECORD_EXTRA = 1 << 14, 22
"""A record of TLS 1.3 (RFC 8446, section 5): most bytes in it, and those around them (header, type, tag)."""


def context(alpn: Sequence[str], ca: str = "", *, insecure: bool = False) -> ssl.SSLContext:
    """A client's context that offers ``alpn``; ``ca`` is a file of trusted certificates, "" the system's.

    Raises:
        OSError: ``ca`` cannot be read.
    """
    made = ssl.create_default_context(cafile=ca or None)
    made.set_alpn_protocols(list(alpn))
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


class Tls:
    """A codec (:class:`~infscale.load.engine.interfaces.Codec`) that carries ``inner`` over TLS.

    ``need`` is the protocol that the server must choose by ALPN; empty accepts any. The bytes that rows count as
    received are the inner codec's; those sent are the encrypted ones.
    """

    def __init__(self, inner: Codec, made: ssl.SSLContext, host: str, need: str = "") -> None:
        self._inner = inner
        self._need = need
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = made.wrap_bio(self._in, self._out, server_hostname=host)
        self._shaken = False
        self.out: list[bytes | memoryview] = []
        self.message = ""
        self.held = 0
        self._failed = False

    @property
    def ready(self) -> bool:
        """Whether requests may be sent."""
        return self._shaken and self._inner.ready

    @property
    def closing(self) -> bool:
        """Whether no further request may be sent."""
        return self._failed or self._inner.closing

    @property
    def free(self) -> int:
        """How many requests may be sent now."""
        return self._inner.free if self.ready else 0

    def start(self) -> bytes:
        """The ClientHello."""
        self._shake()
        return self._out.read()

    def send(self, payload: int, token: int) -> bytes:
        """The bytes of a request, encrypted."""
        data = self._inner.send(payload, token)
        size = len(data) or self._inner.held
        self.held = size + RECORD_EXTRA * -(-size // RECORD_BYTES)
        if data:
            self._write(data)
        if not self._inner.out and not self.out:
            return self._out.read()
        self._encrypt()
        return b""

    def receive(self, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrived."""
        self._in.write(data)
        try:
            if not self._shaken:
                self._shake()
            while self._shaken and (plain := self._tls.read(_CHUNK)):
                self._inner.receive(plain, now, finished)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._inner.end(finished)
            self._failed = True
        except ssl.SSLError as error:
            self._fail(str(error), finished)
        self._encrypt()

    def end(self, finished: list[Finished]) -> None:
        """The server closed the connection."""
        self._inner.end(finished)

    def cancel(self, token: int) -> None:
        """Give a request up."""
        self._inner.cancel(token)
        self._encrypt()

    def tokens(self) -> list[int]:
        """Requests without a finished reply."""
        return self._inner.tokens()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        chosen = self._tls.selected_alpn_protocol() or ""
        if self._need and chosen != self._need:
            raise ssl.SSLError(f"the server chose {chosen or 'no protocol'} by ALPN instead of {self._need}")
        self._shaken = True
        if hello := self._inner.start():
            self._write(hello)

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:  # a call may take one record only
            view = view[self._tls.write(view) :]

    def _encrypt(self) -> None:
        """Move what the inner codec holds in its ``out``, and what TLS itself has to say, into ours."""
        if self._shaken:
            for part in self._inner.out:
                self._write(part)
            self._inner.out.clear()
        if rest := self._out.read():
            self.out.append(rest)

    def _fail(self, message: str, finished: list[Finished]) -> None:
        self.message = message
        self._failed = True
        self._inner.end(finished)
