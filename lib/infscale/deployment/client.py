"""One request at a time to a server, over HTTP or gRPC; measuring is the load engine's work."""

import http.client
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infscale.errors import DeploymentError


class AnsweredError(DeploymentError):
    """The server answered with an error; the message has its text."""


def fetch(
    address: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    ca: str = "",
) -> bytes:
    """Send one HTTP request and return the body of the answer, whose status must be 200.

    ``ca`` names the file of the certificate that vouches for the server; empty for clear text.

    Raises:
        AnsweredError: another status.
        DeploymentError: refused, reset or timed out.
    """
    connection = _connection(address, timeout_s, ca)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(f"{method} http://{address}{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != 200:
        text = answer.decode(errors="replace")[:2000]
        raise AnsweredError(f"{method} http://{address}{path} answered {response.status}: {text}")
    return answer


def _connection(address: str, timeout_s: float, ca: str) -> http.client.HTTPConnection:
    if not ca:
        return http.client.HTTPConnection(address, timeout=timeout_s)
    context = ssl.create_default_context(cadata=_certificate(ca))
    context.set_alpn_protocols(["http/1.1"])
    return http.client.HTTPSConnection(address, timeout=timeout_s, context=context)


def _certificate(ca: str) -> str:
    try:
        return Path(ca).read_text(encoding="ascii")
    except OSError as error:
        raise DeploymentError(f"the certificate {ca} cannot be read: {error.strerror}") from error


def call(address: str, path: str, message: bytes, *, timeout_s: float, ca: str = "") -> bytes:
    """Make one unary gRPC call of ``/package.Service/Method`` and return the serialised answer.

    ``ca`` names the file of the certificate that vouches for the server; empty for clear text.

    Raises:
        AnsweredError: the server ended the call with a status of its own.
        DeploymentError: refused, reset or timed out.
    """
    import grpc

    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    credentials = grpc.ssl_channel_credentials(_certificate(ca).encode()) if ca else None
    with (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    ) as channel:
        method: Any = channel.unary_unary(path, None, None)
        try:
            return bytes(method(message, timeout=timeout_s))
        except grpc.RpcError as error:
            status: Any = error
            silent = status.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            kind = DeploymentError if silent else AnsweredError
            raise kind(f"{path} on {address}: {status.code().name}: {status.details()}") from error
