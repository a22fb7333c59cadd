"""If these fail, a server that wants a token, a Host header or TLS cannot be measured, or the records hold its token.

The servers here are threads of the test: they answer anything to those who may ask.
"""

import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import msgspec
import pytest
import trustme

from infscale.deployment.client import AnsweredError, UnansweredError
from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import Endpoint, ask
from infscale.deployment.fronts import gateway
from infscale.deployment.own.attach import attach, attached
from infscale.errors import ConfigError, DeploymentError
from infscale.experiment import trial
from infscale.experiment.design.arm import CLIENTS, Arm

TOKEN, HOST = "Bearer a-secret", "model.example"
HEADERS = {"Authorization": TOKEN, "Host": HOST}


class Http(BaseHTTPRequestHandler):
    """Answers who has the token and asks for the host, and tells its version as TorchServe does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(b"{}")

    def do_OPTIONS(self) -> None:
        self.answer(json.dumps({"info": {"version": "9.9"}}).encode())

    def do_GET(self) -> None:
        self.answer(b':tensorflow:serving:request_count{model_name="m",status="OK"} 7\n')

    def answer(self, body: bytes) -> None:
        known = (self.headers["authorization"], self.headers["host"]) == (TOKEN, HOST)
        text = body if known else b"who are you?"
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HttpServer(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


class Calls(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers every call of who has the token."""

    def service(self, call: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        known = dict(call.invocation_metadata).get("authorization") == TOKEN

        def answer(message: bytes, context: Any) -> bytes:
            if not known:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            return message

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def addresses(authority: trustme.CA) -> Iterator[dict[str, str]]:
    """The addresses of a server behind TLS, with a certificate for the address and for the host."""
    leaf = authority.issue_cert("localhost", HOST)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    leaf.configure_cert(context)
    pair = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    calls = grpc.server(ThreadPoolExecutor(4), handlers=[Calls()])
    port = calls.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    calls.start()
    with HttpServer(("127.0.0.1", 0), Http) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        yield {"rest": f"https://localhost:{http.server_port}", "grpc": f"grpcs://localhost:{port}"}
        http.shutdown()
    calls.stop(None).wait()


@pytest.fixture
def options(addresses: dict[str, str], ca: Path, tmp_path: Path) -> dict[str, Any]:
    """What it takes to attach to that server."""
    (tmp_path / "body.bin").write_bytes(b"1234")
    return {"model": "m", "payload": tmp_path / "body.bin", "ca": ca, "headers": HEADERS, **addresses}


@pytest.fixture
def endpoint(options: dict[str, Any]) -> Iterator[Endpoint]:
    with attach("torchserve", **options) as endpoint:
        yield endpoint


@pytest.mark.parametrize(("protocol", "client"), [(p, name) for name, one in CLIENTS.items() for p in one.protocols])
def test_every_client_sends_the_headers_over_tls_in_a_trial(endpoint: Endpoint, protocol: str, client: str) -> None:
    arm = Arm(protocol, client=client, connections=2)
    outcome = trial.run(endpoint, trial.Plan(arm, rate_per_s=40, duration_s=0.5))
    assert set(outcome.samples["status"]) == {"ok"}
    assert outcome.manifest.host.tls


def test_the_records_hold_the_names_of_headers_and_no_value(endpoint: Endpoint) -> None:
    outcome = trial.run(endpoint, trial.Plan(Arm("grpc"), rate_per_s=40, duration_s=0.25))
    assert outcome.manifest.header_names == ["authorization", "host"]
    assert b"a-secret" not in msgspec.json.encode(outcome.manifest)
    assert "a-secret" not in repr(endpoint)


def test_whatever_else_is_asked_has_the_headers_too(endpoint: Endpoint, options: dict[str, Any]) -> None:
    """Version and counters: a server that wants a token wants it everywhere."""
    assert endpoint.version == "9.9"
    rows = {key: value for key, value in options.items() if key not in ("payload", "grpc")}
    (options["payload"].parent / "body.json").write_text('{"instances": [1]}')
    with attach("tfserving", payload=options["payload"].parent / "body.json", **rows) as counted:
        assert statistics(counted) == {"requests": 7.0}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_without_the_token_the_servers_own_refusal_is_passed_on(options: dict[str, Any], protocol: str) -> None:
    one = {key: value for key, value in options.items() if key not in {"rest", "grpc"} - {protocol}}
    message = r"answered 401: who are you\?|UNAUTHENTICATED: who are you\?"
    with pytest.raises(AnsweredError, match=message), attach("torchserve", **(one | {"headers": {}})):
        pass


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_another_authority_and_the_systems_do_not_vouch_for_it(
    options: dict[str, Any], protocol: str, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    one = {key: value for key, value in options.items() if key not in {"rest", "grpc"} - {protocol}}
    for ca in (tmp_path / "other.pem", ""):
        with (
            pytest.raises((AnsweredError, UnansweredError), match=r"(?i)certificate|handshake|ssl"),
            attach("torchserve", **(one | {"ca": ca})),
        ):
            pass


def test_a_grid_starts_on_an_attached_server_whatever_its_arms_ask_for(options: dict[str, Any]) -> None:
    """As :func:`infscale.measure` starts a server, for each lifetime."""
    start = attached("torchserve", **options)
    for _ in range(2):
        with start("endpoint", "m", log_folder=Path("logs"), pid_log=Path("pids")) as endpoint:
            assert ask(endpoint, endpoint.payload("grpc")) == endpoint.payload("grpc").bodies[0]


def test_a_gateway_that_would_ask_without_them_is_refused(endpoint: Endpoint) -> None:
    for upstream, message in ((endpoint, "without TLS"), (replace(endpoint, tls=(), ca=""), "that needs none")):
        with pytest.raises(ConfigError, match=f"accepted: a server {message}"), gateway.serve(upstream, mode="cache"):
            pass


def test_an_address_without_a_port_is_that_of_https() -> None:
    with (
        pytest.raises(DeploymentError, match=r"https://nobody\.invalid:443/"),
        attach("triton", model="m", rest="https://nobody.invalid"),
    ):
        pass
