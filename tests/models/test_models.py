"""If these fail, frameworks are compared on different numbers, or on inputs that a cache could guess."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infscale.deployment import FRAMEWORKS
from infscale.deployment.exporters import triton_model
from infscale.errors import ConfigError
from infscale.models import photographs
from infscale.models import reference as models
from infscale.payloads import codecs

FLOATS = [name for name in models.MODELS if models.model(name).dtype == "float32"]


@pytest.mark.parametrize("name", FLOATS)
def test_inputs_are_distinct_real_images(name: str) -> None:
    rows = models.inputs(name, 256)
    assert len({row.tobytes() for row in rows}) == 256
    assert rows.min() >= 0
    assert rows.max() <= 1
    flat = rows.reshape(256, 28, 28)
    neighbours = np.mean([np.corrcoef(i[:, :-1].ravel(), i[:, 1:].ravel())[0, 1] for i in flat if i.std() > 0.05])
    assert neighbours > 0.7, "neighbouring pixels of a photograph are alike; those of noise are not"


def test_more_images_than_the_photograph_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not so many distinct cuts"):
        photographs.grey(100_000)


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_is_the_same_every_time(name: str) -> None:
    models.model.cache_clear()
    first = models.model(name)
    models.model.cache_clear()
    assert models.model(name).digest == first.digest
    assert first.predict(models.inputs(name, 3)).shape == (3, *first.output_shape)


def test_outputs_of_unequal_shape_are_infinitely_different() -> None:
    assert models.max_difference(np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32)) == np.inf


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (2, 3), elements=finite32))
def test_json_gives_the_same_fp32_back(rows: models.Array) -> None:
    back = np.array(json.loads(json.dumps(codecs.json_rows(rows))), dtype=np.float32)
    assert np.array_equal(back, rows)


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_binary_bodies_carry_every_value_of_a_batch(framework: str, batch: int) -> None:
    """A client that lets TensorProto's fill rule shrink a batch sends one row at every batch size."""
    rows = models.inputs("mlp", batch)
    payload = FRAMEWORKS[framework].interface.payload("grpc", "mlp", rows, batch=batch)
    assert len(payload.bodies) == 1
    assert rows.nbytes <= len(payload.bodies[0]) <= rows.nbytes + 200
    assert rows.tobytes() in payload.bodies[0]


def test_a_batch_larger_than_the_rows_is_named() -> None:
    with pytest.raises(ConfigError, match=r"batch=5 .*accepted: 1 to 2"):
        FRAMEWORKS["torchserve"].interface.payload("grpc", "mlp", models.inputs("mlp", 2), batch=5)


def test_our_small_messages_are_the_official_ones_on_the_wire() -> None:
    """A drift here would make our client measure requests that no official client sends."""
    from tensorflow_serving.apis import predict_pb2

    rows = models.inputs("mlp", 2)
    body = FRAMEWORKS["tfserving"].interface.payload("grpc", "mlp", rows, batch=2).bodies[0]
    official = predict_pb2.PredictRequest.FromString(body)
    assert official.model_spec.name == "mlp"
    assert [d.size for d in official.inputs["x"].tensor_shape.dim] == [2, 784]
    assert official.inputs["x"].tensor_content == rows.tobytes()
    assert official.SerializeToString(deterministic=True) == body


def test_tritons_grpc_messages_are_the_official_ones_on_the_wire() -> None:
    from tritonclient.grpc import service_pb2

    rows = models.inputs("mlp", 2)
    body = FRAMEWORKS["triton"].interface.payload("grpc", "mlp", rows, batch=2).bodies[0]
    official = service_pb2.ModelInferRequest.FromString(body)
    assert official.model_name == "mlp"
    assert list(official.inputs[0].shape) == [2, 784]
    assert list(official.raw_input_contents) == [rows.tobytes()]
    assert official.SerializeToString(deterministic=True) == body
    answer = service_pb2.ModelInferResponse(raw_output_contents=[rows.tobytes()])
    answer.outputs.add(name="y", datatype="FP32", shape=rows.shape)
    assert np.array_equal(codecs.triton_answer(answer.SerializeToString()), rows)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", models.MODELS)
def test_one_header_length_fits_every_binary_body_of_a_pool(name: str, batch: int) -> None:
    """The engine sends one set of headers with all bodies: a wrong length would be an error of the server's."""
    from tritonclient.http import InferenceServerClient, InferInput

    rows = models.inputs(name, 21)
    payload = FRAMEWORKS["triton"].interface.payload("rest", name, rows, encoding="raw", batch=batch)
    length = int(payload.headers["inference-header-content-length"])
    for i, body in enumerate(payload.bodies):
        part = rows[i * batch : (i + 1) * batch]
        if part.dtype.kind == "S":
            part = part.astype(object)[:, None]
        kind = {"f": "FP32", "u": "UINT8", "O": "BYTES"}[part.dtype.kind]
        official, head = InferenceServerClient.generate_request_body(
            [InferInput("x", part.shape, kind).set_data_from_numpy(part)]
        )
        assert json.loads(body[:length]) == json.loads(official[:head])
        assert body[length:] == official[head:]


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32)))
def test_bytes_behind_an_answers_json_are_read_whatever_they_are(rows: models.Array) -> None:
    """The length of the JSON is in a header that decoders do not see; brackets and quotes may occur in the floats."""
    output = {"name": "y", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
    body = json.dumps({"model_name": "mlp", "outputs": [output]}).encode() + rows.tobytes()
    assert codecs.v2_answer(body).tobytes() == rows.tobytes()


@pytest.mark.parametrize("name", models.MODELS)
def test_tritons_arithmetic_is_the_references(name: str) -> None:
    model, rows = models.model(name), models.inputs(name, 16)
    answer = triton_model.FORWARD[name](model.weights, rows)
    assert answer.dtype == np.float32
    assert models.max_difference(answer, model.predict(rows)) <= 1e-5
