"""If these fail, predictions for servers that wait for a device are validated on servers that do not."""

import time

import pytest

from infscale.deployment import deploy
from infscale.deployment.endpoint import check_answers, predict
from infscale.errors import ConfigError
from infscale.experiment.check import check
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.models.reference import inputs, model
from infscale.vocabulary import DEVICE


@pytest.mark.server
@pytest.mark.parametrize("framework", ["triton", "torchserve"])
def test_a_server_of_the_device_waits_and_answers_right(framework: str) -> None:
    wait_s = float(model(DEVICE).weights["wait_s"][0])
    with deploy(framework, DEVICE) as endpoint:
        assert set(check_answers(endpoint).values()) == {0.0}
        began = time.monotonic()
        for _ in range(5):
            predict(endpoint, "grpc", inputs(DEVICE, 1))
        assert time.monotonic() - began >= 5 * wait_s


def test_a_framework_whose_models_cannot_wait_is_named_with_those_that_can() -> None:
    with pytest.raises(ConfigError, match=r"'tfserving'.* no operation that waits .*: torchserve, triton"):
        deploy("tfserving", DEVICE)
    with pytest.raises(ConfigError, match="no operation that waits in its models"):
        check(Design(finding="f", arms=(Arm("grpc", framework="tfserving", model=DEVICE),)))
