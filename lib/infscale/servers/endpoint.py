"""An endpoint: what a deployment yields, and a prediction over it as a user would make one."""

import http.client
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from infscale import payloads
from infscale.errors import DeploymentError
from infscale.models import Array, inputs, max_difference, model


@dataclass(frozen=True)
class Endpoint:
    """A running deployment.

    Attributes:
        framework: "tfserving" or "torchserve".
        implementation: what really answers, e.g. "tfserving-embedded"; the label of every result.
        version: of the server.
        label: for titles; says so when the server is our own.
        runtime: what computes, e.g. "TensorFlow 2.21.0".
        model: name of the served model.
        rest, grpc: ``host:port``.
        command: the server's command line.
        processes: the server's processes that live now.
        ready_s: seconds from the start to the first right answer.
    """

    framework: str
    implementation: str
    version: str
    label: str
    runtime: str
    model: str
    rest: str
    grpc: str
    command: Sequence[str] = ()
    processes: Callable[[], list[psutil.Process]] = field(default=list, repr=False)
    ready_s: float = 0.0

    def address(self, protocol: str) -> str:
        """``host:port`` for "rest" or "grpc"."""
        return {"rest": self.rest, "grpc": self.grpc}[protocol]

    def describe(self) -> dict[str, str]:
        """Names and versions for the manifest."""
        keys = ("framework", "implementation", "version", "label", "runtime", "model")
        return {key: getattr(self, key) for key in keys}


def predict(endpoint: Endpoint, protocol: str, rows: Array, *, encoding: str = "", timeout_s: float = 10.0) -> Array:
    """One prediction for ``rows`` (batch, …) in a single request; returns float32 (batch, …).

    Raises:
        DeploymentError: refused, timed out, or answered with an error (whose text is passed on).
    """
    payload = payloads.build(endpoint.framework, protocol, endpoint.model, rows, encoding=encoding, batch=len(rows))
    call = {"rest": _post, "grpc": _call}[protocol]
    answer = payload.decode(call(endpoint.address(protocol), payload, timeout_s))
    return answer.reshape(len(rows), *model(endpoint.model).output_shape)


def _post(address: str, payload: payloads.Payload, timeout_s: float) -> bytes:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("POST", payload.path, payload.bodies[0], payload.headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(f"POST http://{address}{payload.path}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != 200:
        text = body.decode(errors="replace")[:2000]
        raise DeploymentError(f"POST http://{address}{payload.path} answered {response.status}: {text}")
    return body


def _call(address: str, payload: payloads.Payload, timeout_s: float) -> bytes:
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        method: Any = channel.unary_unary(payload.path, None, None)
        try:
            return bytes(method(payload.bodies[0], timeout=timeout_s))
        except grpc.RpcError as error:
            status: Any = error
            raise DeploymentError(f"{payload.path} on {address}: {status.code().name}: {status.details()}") from error


def check_answers(endpoint: Endpoint) -> dict[str, float]:
    """Largest difference from the numpy reference for each protocol and encoding; eight rows each."""
    rows = inputs(endpoint.model, 8)
    truth = model(endpoint.model).predict(rows)
    return {
        f"{protocol}/{encoding}": max_difference(predict(endpoint, protocol, rows, encoding=encoding), truth)
        for protocol in payloads.PROTOCOLS
        for encoding in payloads.ENCODERS[endpoint.framework, protocol]
    }


def answers(endpoint: Endpoint) -> bool:
    """Whether a real prediction comes back right over both protocols."""
    rows = inputs(endpoint.model, 1)
    truth = model(endpoint.model).predict(rows)
    try:
        return all(
            max_difference(predict(endpoint, protocol, rows, timeout_s=2), truth) < 1e-4
            for protocol in payloads.PROTOCOLS
        )
    except DeploymentError:
        return False
