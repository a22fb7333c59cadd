"""Reference models: seeded weights, a numpy implementation, and real inputs.

One set of weights for each model is exported to every framework; :func:`max_difference` compares what the frameworks
answer. Weights are He-normal (He et al. 2015, eq. 12) from numpy's PCG64 and never trained: a server's time does not
depend on their values.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from infscale.errors import one_of
from infscale.models import photographs
from infscale.vocabulary import DEVICE, DEVICE_S

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]
"""Inputs of a model: float32, uint8, or files as numpy's bytes; one row along the first axis each."""
Weights = dict[str, Array]


@dataclass(frozen=True)
class Model:
    """A reference model: rows in, float32 out, with the batch first.

    Attributes:
        name: as it is served.
        input_shape, output_shape: of one row, without the batch.
        weights: by layer name.
        reference: numpy forward pass, (n, *input_shape) → (n, *output_shape).
        dtype: kind of its rows: "float32", "uint8" or "bytes" (a JPEG file each).
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: Weights
    reference: Callable[[Weights, Rows], Array]
    dtype: str = "float32"

    def predict(self, rows: Rows) -> Array:
        """Return the reference output, (n, *output_shape), for ``rows`` of shape (n, *input_shape)."""
        return self.reference(self.weights, rows)

    @property
    def digest(self) -> str:
        """Return the SHA-256 over name, shapes and weights, in hexadecimal."""
        sha = hashlib.sha256(f"{self.name}{self.input_shape}{self.output_shape}{self.dtype}".encode())
        for key in sorted(self.weights):
            sha.update(key.encode() + self.weights[key].tobytes())
        return sha.hexdigest()


def _he(rng: np.random.Generator, *shape: int) -> Array:
    """Return random weights with a variance of 2 / fan-in (He et al. 2015)."""
    fan_in = int(np.prod(shape[:-1]))
    return np.asarray(rng.standard_normal(shape) * np.sqrt(2 / fan_in), dtype=np.float32)


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), dtype=np.float32)


def _mlp(w: Weights, x: Array) -> Array:
    hidden = np.maximum(x @ w["dense1"] + w["bias1"], 0)
    return _softmax(hidden @ w["dense2"] + w["bias2"])


def _conv_relu_pool(x: Array, kernel: Array, bias: Array) -> Array:
    """Apply a valid 3×3 convolution, ReLU and 2×2 max pooling to x of shape (n, height, width, channels)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))  # type: ignore[call-overload]
    y = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias, 0)
    height, width = y.shape[1] // 2, y.shape[2] // 2
    blocks = y[:, : 2 * height, : 2 * width].reshape(len(y), height, 2, width, 2, -1)
    return np.asarray(blocks.max(axis=(2, 4)), dtype=np.float32)


def _cnn(w: Weights, x: Array) -> Array:
    y = _conv_relu_pool(x[..., None], w["conv1"], w["bias1"])
    y = _conv_relu_pool(y, w["conv2"], w["bias2"])
    return _softmax(y.reshape(len(x), -1) @ w["dense3"] + w["bias3"])


def _image(w: Weights, x: Rows) -> Array:
    """Apply one dense layer to the means of blocks of 32×32 pixels: cheap compared with its input."""
    blocks = x.reshape(len(x), 7, 32, 7, 32, 3).mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
    return _softmax(blocks.reshape(len(x), -1) @ w["dense"] + w["bias"])


def _image_model(name: str = "image") -> Model:
    rng = np.random.default_rng(224)
    weights = {"dense": _he(rng, 147, 10), "bias": _he(rng, 10) * 0.1}
    if name == "image":
        return Model(name, (photographs.SIDE, photographs.SIDE, 3), (10,), weights, _image, "uint8")
    return Model(name, (), (10,), weights, lambda w, x: _image(w, photographs.decoded(x)), "bytes")


def _noop_model() -> Model:
    return Model("noop", (784,), (784,), {}, lambda _, x: x)


def _device_model() -> Model:
    """Return a model that computes nothing: a server waits, as for a device, and answers with ten of the numbers."""
    return Model(DEVICE, (784,), (10,), {"wait_s": np.array([DEVICE_S], np.float32)}, lambda _, x: x[:, :10])


def _mlp_model() -> Model:
    rng = np.random.default_rng(784)
    weights = {"dense1": _he(rng, 784, 128), "bias1": _he(rng, 128) * 0.1}
    weights |= {"dense2": _he(rng, 128, 10), "bias2": _he(rng, 10) * 0.1}
    return Model("mlp", (784,), (10,), weights, _mlp)


def _cnn_model() -> Model:
    rng = np.random.default_rng(2828)
    weights = {"conv1": _he(rng, 3, 3, 1, 8), "bias1": _he(rng, 8) * 0.1}
    weights |= {"conv2": _he(rng, 3, 3, 8, 16), "bias2": _he(rng, 16) * 0.1}
    weights |= {"dense3": _he(rng, 400, 10), "bias3": _he(rng, 10) * 0.1}
    return Model("cnn", (28, 28), (10,), weights, _cnn)


_MODELS: dict[str, Callable[[], Model]] = {
    "noop": _noop_model,
    "device": _device_model,
    "mlp": _mlp_model,
    "cnn": _cnn_model,
    "image": _image_model,
    "photo": lambda: _image_model("photo"),
}
MODELS = tuple(_MODELS)
"""Names of the reference models."""


@lru_cache
def model(name: str) -> Model:
    """Return the reference model called ``name``.

    noop (the identity on 784 numbers), device (784→10, the servers of which wait 10 ms), mlp (784→128→10) and cnn
    (28×28) take float32; image takes 224×224×3 pixels as uint8, and
    photo takes the same picture as a JPEG file, which the server decodes.

    Raises:
        ConfigError: no such model.
    """
    return _MODELS[one_of("model", name, _MODELS)]()


def inputs(name: str, count: int = 256) -> Rows:
    """Return ``count`` distinct rows of the model ``name``, (count, *input_shape), cut from a real photograph."""
    if model(name).dtype == "float32":
        return photographs.grey(count).reshape(count, *model(name).input_shape)
    return photographs.pixels(count) if model(name).dtype == "uint8" else photographs.files(count)


def max_difference(answer: Array, truth: Array) -> float:
    """Return the largest absolute difference of two outputs; infinite if their shapes differ."""
    if answer.shape != truth.shape:
        return float("inf")
    return float(np.max(np.abs(answer - truth), initial=0.0))
