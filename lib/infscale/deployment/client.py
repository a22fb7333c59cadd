"""One request at a time to a server, over HTTP or gRPC; measuring is the load engine's work."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infscale.errors import ConfigError, DeploymentError


class AnsweredError(DeploymentError):
    """The server answered with an error; the message has its text."""


class UnansweredError(DeploymentError):
    """No answer came: the server refused the connection, ended it, or took too long."""


def fetch(
    address: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    tls: bool = False,
    ca: str = "",
) -> bytes:
    """Send one HTTP request and return the body of the answer, whose status must be 200.

    ``ca`` names the file of the certificates that vouch for a server with ``tls``; "" for the system's.

    Raises:
        AnsweredError: another status.
        UnansweredError: refused, reset or timed out.
        DeploymentError: the certificates cannot be read.
        ConfigError: the address, the path or a header is none.
    """
    where = f"{method} {'https' if tls else 'http'}://{address}{path}"
    try:
        with contextlib.closing(_connection(address, timeout_s, tls, ca)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
    except (http.client.InvalidURL, UnicodeError) as error:
        raise ConfigError(f"{where} cannot be asked for: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise UnansweredError(f"{where}: {str(error) or type(error).__name__}") from error
    if response.status != 200:
        text = answer.decode(errors="replace")[:2000]
        raise AnsweredError(f"{where} answered {response.status}: {text}")
    return answer


def _connection(address: str, timeout_s: float, tls: bool, ca: str) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection(address, timeout=timeout_s)
    context = trusting(ca)
    context.set_alpn_protocols(["http/1.1"])
    return http.client.HTTPSConnection(address, timeout=timeout_s, context=context)


def trusting(ca: str) -> ssl.SSLContext:
    """Return a client's TLS context that trusts the certificates in the file ``ca``; "" for the system's.

    Raises:
        DeploymentError: they cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise DeploymentError(f"the certificate {ca} cannot be read: {error.strerror or error}") from error


def call(
    address: str,
    path: str,
    message: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    tls: bool = False,
    ca: str = "",
) -> bytes:
    """Make one unary gRPC call of ``/package.Service/Method`` and return the serialised answer.

    ``headers`` have names in lower case; ``host`` is the authority that is asked for. ``ca`` is as of :func:`fetch`.

    Raises:
        AnsweredError: the server ended the call with a status of its own.
        UnansweredError: refused, reset or timed out.
        DeploymentError: the certificates cannot be read.
    """
    with _called(address, path, headers, tls, ca) as (channel, metadata):
        return bytes(channel.unary_unary(path, None, None)(message, timeout=timeout_s, metadata=metadata))


def call_stream(
    address: str,
    path: str,
    message: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    tls: bool = False,
    ca: str = "",
) -> list[bytes]:
    """Make one streaming gRPC call and return the serialised messages of the answer, once it has ended.

    The method may also be one that takes a stream of requests: it gets one and the end. The other arguments, and the
    errors, are those of :func:`call`.
    """
    with _called(address, path, headers, tls, ca) as (channel, metadata):
        return list(channel.unary_stream(path, None, None)(message, timeout=timeout_s, metadata=metadata))


@contextlib.contextmanager
def _called(
    address: str, path: str, headers: Mapping[str, str] | None, tls: bool, ca: str
) -> Iterator[tuple[Any, tuple[tuple[str, str], ...]]]:
    """Yield a channel for a call, and its metadata; what goes wrong is raised as :func:`call` says."""
    import grpc

    metadata = dict(headers or {})
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    if host := metadata.pop("host", ""):
        options.append(("grpc.default_authority", host))
    if tls:
        roots = None
        if ca:
            trusting(ca)  # which says what is wrong with the file
            roots = Path(ca).read_bytes()
        opened = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
    else:
        opened = grpc.insecure_channel(address, options)
    with opened as channel:
        try:
            yield channel, tuple(metadata.items())
        except grpc.RpcError as error:
            status: Any = error
            code = status.code()
            late, away = code is grpc.StatusCode.DEADLINE_EXCEEDED, code is grpc.StatusCode.UNAVAILABLE
            kind = UnansweredError if late or (away and not _speaks(address)) else AnsweredError
            raise kind(f"{path} on {address}: {code.name}: {status.details()}") from error


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2 sends first (RFC 9113, 3.4): the magic words, and settings without a value."""


def _speaks(address: str) -> bool:
    """Return whether a server at ``address`` answers the first bytes of HTTP/2.

    gRPC has one code, UNAVAILABLE, for a server that is not there, and for an error that it tells (TorchServe: whatever
    a handler raises).
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2) as connection:
            connection.sendall(_PREFACE)
            return bool(connection.recv(1))
    except OSError:
        return False
