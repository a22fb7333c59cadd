"""If these fail, an endpoint over TLS, IPv6 or a Unix socket cannot be measured."""

import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import grpc
import numpy as np
import pandas as pd
import pytest
import trustme

from infscale.errors import ConfigError
from infscale.load.engine import run as engine
from infscale.load.engine.job import parse

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
AT = np.arange(0, 200, 10, dtype=np.int64) * 1_000_000


def load(url: str, *, body: bytes = b"body", together: bool = False, **options: object) -> pd.DataFrame:
    settings: dict[str, object] = {"timeout_s": 10.0, "connections": 4, **options}
    at = np.zeros_like(AT) if together else AT
    return engine.run(url, [body], [at], [np.zeros(len(at), np.int32)], **settings).samples  # type: ignore[arg-type]


@contextmanager
def http_server(listener: socket.socket, context: ssl.SSLContext | None = None) -> Iterator[None]:
    """Answers every read with one reply; one thread for each connection."""

    def talk(plain: socket.socket) -> None:
        with plain:
            try:
                connection = context.wrap_socket(plain, server_side=True) if context else plain
                while connection.recv(65_536):
                    connection.sendall(REPLY)
            except OSError:
                pass  # the client went, or refused our certificate

    def accept() -> None:
        while True:
            try:
                Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    thread = Thread(target=accept, daemon=True)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Any method answers with the message that it got."""

    def service(self, call: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(lambda message, _: message)


@contextmanager
def grpc_server(listen: Callable[[grpc.Server], int]) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
    port = listen(server)
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def https(authority: trustme.CA) -> Iterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener, http_server(listener, context):
        yield f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def grpcs(authority: trustme.CA) -> Iterator[str]:
    leaf = authority.issue_cert("localhost")
    pair = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_server_credentials([pair])
    with grpc_server(lambda server: server.add_secure_port("127.0.0.1:0", credentials)) as port:
        yield f"localhost:{port}"


def test_https_is_answered_and_counts_encrypted_bytes(https: str, ca: str) -> None:
    rows = load(f"https://{https}/", ca=ca)
    assert (rows["status"] == "ok").all()
    assert (rows["bytes_out"] > len(b"body") + 60).all()


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000], ids=["small", "several windows", "beyond 64 frames"])
def test_grpc_over_tls_carries_bodies_of_any_size(grpcs: str, ca: str, size: int) -> None:
    rows = load(f"grpcs://{grpcs}/echo.Echo/Call", body=b"x" * size, ca=ca)
    assert (rows["status"] == "ok").all()
    assert (rows["bytes_in"] > size).all()


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_asked(https: str) -> None:
    assert set(load(f"https://{https}/")["status"]) == {"bad_response"}
    assert set(load(f"https://{https}/", insecure=True)["status"]) == {"ok"}


def test_a_failed_handshake_costs_one_request_though_many_wait(https: str) -> None:
    """It cost two, and the second one's status and reason spoke of a connection that was reset."""
    rows = load(f"https://{https}/", together=True)
    assert rows["status"].value_counts().to_dict() == {"bad_response": len(AT)}


def test_the_reason_of_a_failed_handshake_is_told(https: str) -> None:
    result = engine.run(f"https://{https}/", [b""], [AT], [np.zeros(len(AT), np.int32)], timeout_s=5)
    assert "CERTIFICATE_VERIFY_FAILED" in result.generator.error


def test_a_server_that_does_not_choose_http2_is_a_row_with_its_reason(https: str, ca: str) -> None:
    result = engine.run(f"h2://{https}/", [b""], [AT], [np.zeros(len(AT), np.int32)], timeout_s=5, ca=ca)
    assert set(result.samples["status"]) == {"bad_response"}
    assert "ALPN" in result.generator.error


def test_tls_against_a_plain_port_and_the_reverse_are_rows(https: str, ca: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, http_server(listener):
        over = load(f"https://localhost:{listener.getsockname()[1]}/", ca=ca, timeout_s=1.0)
    under = load(f"http://{https}/", timeout_s=1.0)
    assert "ok" not in set(over["status"]) | set(under["status"])


def test_ipv6_is_reached_by_address_and_by_name() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with listener, http_server(listener):
        port = listener.getsockname()[1]
        assert set(load(f"http://[::1]:{port}/")["status"]) == {"ok"}
        assert parse(f"http://[::1]:{port}/").authority == f"[::1]:{port}"


def test_unix_sockets_carry_rest_and_grpc(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "rest.sock"))
        listener.listen()
        with http_server(listener):
            assert set(load(f"http://unix:{tmp_path}/rest.sock:/v1")["status"]) == {"ok"}
    with grpc_server(lambda server: server.add_insecure_port(f"unix:{tmp_path}/grpc.sock")):
        assert set(load(f"grpc://unix:{tmp_path}/grpc.sock:/echo.Echo/Call")["status"]) == {"ok"}


def test_gzip_of_messages_is_understood_by_another_implementation() -> None:
    with grpc_server(lambda server: server.add_insecure_port("127.0.0.1:0")) as port:
        url = f"grpc://127.0.0.1:{port}/echo.Echo/Call"
        plain, packed = load(url, body=b"x" * 10_000), load(url, body=b"x" * 10_000, gzip=True)
    assert set(packed["status"]) == set(plain["status"]) == {"ok"}
    assert (packed["bytes_out"] < 500).all()
    assert (packed["bytes_in"] > 0).all()


def test_without_keep_alive_every_request_has_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, http_server(listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        result = engine.run(url, [b""], [AT], [np.zeros(len(AT), np.int32)], timeout_s=5, keep_alive=False)
    assert set(result.samples["status"]) == {"ok"}
    assert result.samples["connection"].is_unique
    assert result.generator.connections_opened is not None
    assert result.generator.connections_opened >= len(AT)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://unix:/no-path", {}, "needs a socket and a path"),
        ("grpcs://127.0.0.1/p.S/M", {}, "needs a host and a port"),
        ("https://127.0.0.1:1/", {"ca": "/no/such/file"}, "cannot start"),
        ("http://no-such-host.invalid:80/", {}, "cannot start"),
    ],
)
def test_what_cannot_start_is_named(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(url, **options)  # type: ignore[arg-type]
