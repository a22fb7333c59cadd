"""If these fail, a server's own words are taken for silence, and a user waits for a time limit without its cause."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import grpc
import pytest

from infscale.deployment.client import AnsweredError, UnansweredError, call, fetch
from infscale.deployment.processes.ports import free_ports
from infscale.errors import ConfigError

PATH = "/any.Service/Method"


class Refusing(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Ends every call with the status UNAVAILABLE, as TorchServe does when a handler raises."""

    def service(self, call: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def refuse(_: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Prediction failed")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def refusing() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_unavailable_is_an_answer_of_a_server_that_is_there(refusing: str) -> None:
    with pytest.raises(AnsweredError, match="UNAVAILABLE: Prediction failed"):
        call(refusing, PATH, b"", timeout_s=10)


def test_unavailable_is_silence_where_nobody_is_there() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnansweredError, match="UNAVAILABLE"):
        call(f"127.0.0.1:{port}", PATH, b"", timeout_s=10)


def test_a_proxy_whose_server_is_not_there_yet_is_silence() -> None:
    """As Docker's, which takes connections from the container's start on, and ends them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        try:
            with pytest.raises(UnansweredError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
                call(f"127.0.0.1:{listener.getsockname()[1]}", PATH, b"", timeout_s=5)
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("path", ["/a b", "/modèle", "/a\nb"])
def test_a_path_that_is_none_is_named_at_once(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be asked for"):
        fetch("127.0.0.1:1", "GET", path, timeout_s=1)


def test_an_address_that_is_none_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match="cannot be asked for"):
        fetch("127.0.0.1:http", "GET", "/", timeout_s=1)
