"""If these fail, encodings or versions of HTTP are compared on other bytes, or other answers, than they are said."""

from collections.abc import Callable

import httpx
import numpy as np
import pytest

from infscale.deployment import FRAMEWORKS
from infscale.deployment.endpoint import Endpoint
from infscale.errors import ConfigError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.trial import Plan
from infscale.load.ceiling import of_payload
from infscale.models import reference as models
from infscale.payloads import encoders as payloads
from infscale.payloads.limits import check_http
from infscale.vocabulary import HTTP, PROTOCOLS


def load(endpoint: Endpoint, arm: Arm) -> trial.Outcome:
    outcome = trial.run(endpoint, Plan(arm, 40, 0.5))
    assert (outcome.samples["status"] == "ok").all(), outcome.samples["status"].value_counts()
    return outcome


def test_rest_on_http2_carries_the_same_body_and_gets_the_references_answer(
    deployed: Callable[[str], Endpoint],
) -> None:
    endpoint = deployed("tfserving")
    if endpoint.implementation != "tfserving-embedded":
        pytest.skip("the real TensorFlow Serving's REST speaks HTTP/1.1 only")
    outcomes = {http: load(endpoint, Arm("rest", http=http)) for http in HTTP}
    zipped = load(endpoint, Arm("rest", http="2", gzip=True))
    payload = endpoint.payload("rest")
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        url = f"http://{endpoint.rest}{payload.path}"
        answer = client.post(url, content=payload.bodies[0], headers=payload.headers)
    assert answer.http_version == "HTTP/2"
    truth = models.model("mlp").predict(models.inputs("mlp", 1))
    assert models.max_difference(payload.decode(answer.content), truth) <= 1e-5
    one, two = (outcomes[http].samples for http in HTTP)
    assert (one["payload"] == two["payload"]).all()
    sizes = np.array([len(body) for body in payload.bodies])[two["payload"]]
    over = two["bytes_out"] - sizes
    assert over.between(9, 300).all(), "frame heads and header fields, no more"
    assert over.min() < (one["bytes_out"] - sizes).min(), "later requests' fields are indexed"
    assert (zipped.samples["bytes_out"] < 0.6 * sizes.min()).all()
    assert outcomes["2"].manifest.arm.http == "2"
    assert outcomes["2"].manifest.arm.connections == 8


@pytest.mark.parametrize("framework", ["torchserve", "triton"])
def test_servers_without_http2_are_named_before_anything_is_deployed(framework: str) -> None:
    with pytest.raises(ConfigError, match=f"http='2': {framework}'s REST does not speak HTTP/2.*accepted: 1.1"):
        check_http(FRAMEWORKS[framework].interface, "2")
    check_http(FRAMEWORKS[framework].interface, "1.1")


def test_a_deployed_server_without_http2_is_named_before_it_is_loaded(endpoint: Endpoint) -> None:
    """TensorFlow Serving's binary and the embedded one differ: only the endpoint knows."""
    if "2" in endpoint.http:
        assert endpoint.scheme("rest", "2") == "h2c"
    else:
        with pytest.raises(ConfigError, match=r"http='2': the REST of .* does not speak it; accepted: 1.1"):
            trial.run(endpoint, Plan(Arm("rest", http="2"), 40, 0.5))


def test_compressed_bodies_are_smaller_and_answered_or_refused_beforehand(endpoint: Endpoint) -> None:
    """A server that hands gzip to its model answers nothing but errors: a capacity of zero would be reported."""
    for protocol in PROTOCOLS:
        arm = Arm(protocol, gzip=True)
        if protocol not in endpoint.interface.gzip:
            with pytest.raises(ConfigError, match=f"gzip=True: {endpoint.framework} takes no compressed body"):
                load(endpoint, arm)
            continue
        plain, zipped = (load(endpoint, one).samples["bytes_out"].mean() for one in (Arm(protocol), arm))
        assert zipped < plain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": "rest", "http": "3"}, "http='3' is not known; accepted: 1.1, 2"),
        ({"protocol": "grpc", "http": "2"}, "gRPC is always on HTTP/2"),
        ({"protocol": "rest", "http": "2", "client": "requests"}, "client='requests' supports neither gzip nor HTTP"),
        ({"protocol": "rest", "gzip": True, "client": "requests"}, "client='requests' supports neither gzip nor HTTP"),
        ({"protocol": "grpc", "gzip": True, "client": "grpcio"}, "client='grpcio' supports no gzip"),
    ],
)
def test_arms_that_nothing_can_run_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Arm(**given)  # type: ignore[arg-type]


def test_rest_on_http2_has_the_connections_of_grpc() -> None:
    assert (Arm("rest").limit(), Arm("rest", http="2").limit()) == (256, 8)


def test_the_generators_ceiling_on_http2_is_that_of_its_http2_codec() -> None:
    ceilings = {"rest": [(256.0, 90.0)], "grpc": [(256.0, 70.0)]}
    payload = payloads.Payload("rest", "raw", "/", [bytes(256)], lambda body: np.frombuffer(body, np.float32))
    assert trial._ceiling(ceilings, payload, "1.1") == of_payload(ceilings, "rest", payload.bodies)
    assert trial._ceiling(ceilings, payload, "2") == of_payload(ceilings, "grpc", payload.bodies)


EVERY = [(name, p, e) for name, one in FRAMEWORKS.items() for p in PROTOCOLS for e in one.interface.encodings(p)]


@pytest.mark.parametrize(("framework", "protocol", "encoding"), EVERY)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_a_body_carries_every_byte_of_its_tensor(framework: str, protocol: str, encoding: str, batch: int) -> None:
    """``make_tensor_proto`` with a fill value sends 3 kB at every batch size, and gRPC looks ever faster."""
    rows, interface = models.inputs("mlp", 64), FRAMEWORKS[framework].interface
    body = interface.payload(protocol, "mlp", rows, encoding=encoding, batch=batch).bodies[0]
    tensor = 4 * 784 * batch
    assert len(body) >= tensor
    if encoding in ("raw", "npy", "protobuf", "float_val", "contents"):
        assert len(body) <= tensor + 400
