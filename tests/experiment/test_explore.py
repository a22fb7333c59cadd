"""If these fail, the form offers what a server cannot take, or fails with a traceback that nobody sees."""

import re

import pytest

from infscale import Endpoint, explore
from infscale.deployment import tfserving, triton
from infscale.errors import ConfigError
from infscale.payloads.encoders import Interface


def endpoint(model: str = "mlp", interface: Interface = triton.INTERFACE, grpc: str = "127.0.0.1:1") -> Endpoint:
    """Return a deployment whose server has ended."""
    return Endpoint(
        "triton", "triton", "2", "Triton", "numpy", model, "127.0.0.1:2", grpc, interface=interface, command=("x",)
    )


def test_the_form_offers_what_the_chosen_server_takes() -> None:
    form = explore(endpoint(), endpoint("cnn", tfserving.INTERFACE, grpc=""))
    served, protocol, encoding, *_ = form.children
    assert [one[1] for one in protocol.options] == ["rest", "grpc"]
    protocol.value = "grpc"
    assert list(encoding.options) == list(triton.INTERFACE.encodings("grpc"))
    served.index = 1
    assert [one[1] for one in protocol.options] == ["rest"]
    assert list(encoding.options) == list(tfserving.INTERFACE.encodings("rest"))
    assert encoding.value == encoding.options[0]


def test_a_server_that_has_ended_is_said_to_have() -> None:
    form = explore(endpoint())
    button, shown = form.children[6:8]
    button.click()
    assert "its server has ended; deploy it again" in shown.value
    assert not button.disabled


@pytest.mark.parametrize(("endpoints", "said"), [((), "one endpoint or several"), (("stream",), "reference models")])
def test_what_the_form_cannot_ask_is_refused(endpoints: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        explore(*map(endpoint, endpoints))
