"""TLS around a codec, without input and output: encrypts what the inner codec sends, decrypts what arrives for it."""

import ssl
from collections.abc import Sequence

from infscale.load.engine.interfaces import Codec
from infscale.load.engine.status import Finished

_CHUNK = 1 << 18
"""Most decrypted bytes that are handed to the inner codec at once."""
RECORD_BYTES, RECORD_EXTRA = 1 << 14, 22
"""A record of TLS 1.3 (RFC 8446, section 5): most bytes of content, and bytes around them (header, type, tag)."""


def context(
    alpn: Sequence[str], ca: str = "", *, insecure: bool = False, certificate: str = "", key: str = ""
) -> ssl.SSLContext:
    """Return a client's TLS context.

    Args:
        alpn: protocols to offer.
        ca: file of trusted certificates; "" for the system's.
        insecure: trust any certificate.
        certificate: file of the client's own certificate, with those that signed it; "" for none.
        key: file of its key; "" if ``certificate`` holds it, too.

    Raises:
        OSError: a file cannot be read, or the key is not that of the certificate.
    """
    result = ssl.create_default_context(cafile=ca or None)
    result.set_alpn_protocols(list(alpn))
    if certificate:
        result.load_cert_chain(certificate, key or None)
    if insecure:
        result.check_hostname = False
        result.verify_mode = ssl.CERT_NONE
    return result


class Tls:
    """A codec (:class:`~infscale.load.engine.interfaces.Codec`) that carries another one over TLS.

    Rows count the inner codec's bytes as received, and the encrypted ones as sent.

    Args:
        inner: the codec to carry.
        tls: from :func:`context`.
        host: whose name the certificate must hold.
        need: protocol that the server must choose by ALPN; "" accepts any.
    """

    def __init__(self, inner: Codec, tls: ssl.SSLContext, host: str, need: str = "") -> None:
        self._inner = inner
        self._need = need
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_hostname=host)
        self._shaken = False
        self.out: list[bytes | memoryview] = []
        self.message = ""
        self.held = 0
        self._failed = False

    @property
    def ready(self) -> bool:
        """Return whether requests may be sent."""
        return self._shaken and self._inner.ready

    @property
    def closing(self) -> bool:
        """Return whether no further request may be sent."""
        return self._failed or self._inner.closing

    @property
    def free(self) -> int:
        """Return how many requests may be sent now."""
        return self._inner.free if self.ready else 0

    @property
    def refused(self) -> list[tuple[int, int]]:
        """Return the requests that may be sent again."""
        return self._inner.refused

    @property
    def single(self) -> bool:
        """Return whether the connection carries one request at a time."""
        return self._inner.single

    @property
    def withheld(self) -> dict[int, int]:
        """Return how many bytes of ended requests were never sent, by token, without the encryption's own."""
        return self._inner.withheld

    @property
    def reasons(self) -> dict[int, str]:
        """Return why requests failed, by token."""
        return self._inner.reasons

    def start(self) -> bytes:
        """Return what a new connection sends first: the ClientHello."""
        self._shake()
        return self._out.read()

    def send(self, payload: int, token: int) -> bytes:
        """Return the encrypted bytes of a request; b"" if they are in ``out``."""
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
        """Take what arrived at time ``now`` (ns), and append the requests that it completes to ``finished``."""
        self._in.write(data)
        try:
            if not self._shaken:
                self._shake()
            while self._shaken and (plain := self._tls.read(_CHUNK)):
                self._inner.receive(plain, now, finished)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._fail("the server closed the connection", finished)
        except ssl.SSLError as error:
            self._fail(str(error), finished)
        self._encrypt()

    def end(self, finished: list[Finished]) -> None:
        """Take the end of the connection."""
        self._inner.end(finished)

    def cancel(self, token: int) -> None:
        """Give up a request."""
        self._inner.cancel(token)
        self._encrypt()

    def tokens(self) -> list[int]:
        """Return the requests without a finished reply."""
        return self._inner.tokens()

    def so_far(self, token: int) -> tuple[int, int]:
        """Return the bytes that a request's stream has brought so far, and the time of its first message."""
        return self._inner.so_far(token)

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
        """Move what the inner codec has in its ``out``, and TLS's own messages, into this codec's ``out``."""
        if self._shaken:
            for part in self._inner.out:
                self._write(part)
            self._inner.out.clear()
        if rest := self._out.read():
            self.out.append(rest)

    def _fail(self, message: str, finished: list[Finished]) -> None:
        self.message = message
        self._failed = True
        before = len(finished)
        self._inner.end(finished)
        for token, *_ in finished[before:]:
            self.reasons.setdefault(token, message)
