"""The ``model.py`` in every exported repository: it computes with numpy, on the weights in the file beside it.

It runs inside Triton's Python backend, where this project need not be installed, so that it imports nothing of it.
"""

import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
Weights = dict[str, Array]


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), dtype=np.float32)


def _device(w: Weights, x: Array) -> Array:
    """Wait as for a device, which takes the same time for any batch and no processor."""
    time.sleep(float(w["wait_s"][0]))
    return x[:, :10]


def _mlp(w: Weights, x: Array) -> Array:
    hidden = np.maximum(x @ w["dense1"] + w["bias1"], 0)
    return _softmax(hidden @ w["dense2"] + w["bias2"])


def _pooled(x: Array, kernel: Array, bias: Array) -> Array:
    """Apply a valid convolution, ReLU and 2×2 max pooling to x of shape (n, height, width, channels).

    The convolution is one matrix product (im2col).
    """
    height, width, channels, filters = kernel.shape
    windows: Any = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, height * width * channels)
    y = np.maximum(columns @ kernel.reshape(-1, filters) + bias, 0).reshape(*windows.shape[:3], filters)
    even = y[:, : y.shape[1] // 2 * 2, : y.shape[2] // 2 * 2]
    rows = np.maximum(even[:, ::2], even[:, 1::2])
    return np.asarray(np.maximum(rows[:, :, ::2], rows[:, :, 1::2]), dtype=np.float32)


def _cnn(w: Weights, x: Array) -> Array:
    y = _pooled(_pooled(x[..., None], w["conv1"], w["bias1"]), w["conv2"], w["bias2"])
    return _softmax(y.reshape(len(x), -1) @ w["dense3"] + w["bias3"])


def _image(w: Weights, x: Any) -> Array:
    blocks = x.reshape(len(x), 7, 32, 7, 32, 3).mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
    return _softmax(blocks.reshape(len(x), -1) @ w["dense"] + w["bias"])


def _photo(w: Weights, x: Any) -> Array:
    """Decode JPEG files (n, 1), as Python's bytes or numpy's, and run the model for pixels."""
    from PIL import Image

    pixels = []
    for row in x.ravel():
        with Image.open(io.BytesIO(bytes(row))) as image:
            pixels.append(np.asarray(image.convert("RGB")))
    return _image(w, np.stack(pixels))


FORWARD: dict[str, Callable[[Weights, Any], Array]] = {
    "noop": lambda _, x: x,
    "device": _device,
    "mlp": _mlp,
    "cnn": _cnn,
    "image": _image,
    "photo": _photo,
}
"""The function (weights, rows) → output of each model, by its name."""


class TritonPythonModel:
    """Takes the input ``x`` and gives the output ``y`` (float32), with the batch first."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; Triton calls this once for each instance, with its description of the model."""
        import triton_python_backend_utils as backend  # type: ignore[import-not-found]  # exists in the backend only

        self.backend = backend
        self.forward = FORWARD[args["model_name"]]
        with np.load(os.path.join(args["model_repository"], args["model_version"], "weights.npz")) as file:
            self.weights = dict(file)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests that Triton hands over together as one batch, and return a response for each."""
        rows = [self.backend.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        outputs = self.forward(self.weights, rows[0] if len(rows) == 1 else np.concatenate(rows))
        parts = np.split(outputs, np.cumsum([len(part) for part in rows])[:-1])
        return [self.backend.InferenceResponse([self.backend.Tensor("y", part)]) for part in parts]
