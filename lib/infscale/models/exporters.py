"""Exporters, run as ``python -m infscale.models.exporters MODEL KIND FOLDER`` in a process of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from infscale.models import photographs
from infscale.models.reference import Array, Model, Rows, inputs, max_difference, model

PARITY = {"float32": 1e-5, "uint8": 1e-5, "bytes": 1e-2}
"""Largest accepted absolute difference between an export and the numpy reference.

Libraries decode a JPEG to pixels that differ by a step or two: their inverse transforms round differently.
"""


def savedmodel(m: Model, folder: Path) -> str:
    """Write a TensorFlow SavedModel, version 1: ``serving_default`` (x → y), ``from_bytes`` (rows as strings → y)."""
    import tensorflow as tf

    w = {key: tf.constant(value) for key, value in m.weights.items()}

    def pooled(x: Any, kernel: Any, bias: Any) -> Any:
        return tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias), 2, 2, "VALID")

    def mlp(x: Any) -> Any:
        hidden = tf.nn.relu(tf.matmul(x, w["dense1"]) + w["bias1"])
        return tf.nn.softmax(tf.matmul(hidden, w["dense2"]) + w["bias2"])

    def cnn(x: Any) -> Any:
        y = pooled(pooled(x[..., None], w["conv1"], w["bias1"]), w["conv2"], w["bias2"])
        return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 400]), w["dense3"]) + w["bias3"])

    def image(x: Any) -> Any:
        blocks = tf.reduce_mean(tf.reshape(tf.cast(x, tf.float32), [-1, 7, 32, 7, 32, 3]), axis=[2, 4]) / 255
        return tf.nn.softmax(tf.matmul(tf.reshape(blocks, [-1, 147]), w["dense"]) + w["bias"])

    def decoded(file: Any) -> Any:
        return tf.ensure_shape(tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE"), [224, 224, 3])

    def photo(x: Any) -> Any:
        return image(tf.map_fn(decoded, x, fn_output_signature=tf.uint8))

    forward = {"noop": tf.identity, "mlp": mlp, "cnn": cnn, "image": image, "photo": photo}[m.name]
    dtype = tf.string if m.dtype == "bytes" else tf.as_dtype(m.dtype)
    function = tf.function(
        lambda x: {"y": forward(x)},
        input_signature=[tf.TensorSpec([None, *m.input_shape], dtype, name="x")],
    )

    def unpacked(x: Any) -> Any:
        return x if m.dtype == "bytes" else tf.reshape(tf.io.decode_raw(x, dtype), [-1, *m.input_shape])

    from_bytes = tf.function(
        lambda x: {"y": forward(unpacked(x))}, input_signature=[tf.TensorSpec([None], tf.string, name="x")]
    )
    module = tf.Module()
    signatures = {"serving_default": function, "from_bytes": from_bytes}
    tf.saved_model.save(module, str(folder / m.name / "1"), signatures=signatures)
    rows = inputs(m.name, 8)
    _check(function(tf.constant(rows))["y"].numpy(), m, rows, "SavedModel")
    return m.name


def mar(m: Model, folder: Path) -> str:
    """Write a TorchServe model archive with a TorchScript module and this project's handler."""
    import torch

    module = _torch_module(m).eval()
    rows = inputs(m.name, 8)
    # A file is decoded by the handler: the module takes its pixels.
    taken = torch.from_numpy(photographs.decoded(rows) if m.dtype == "bytes" else rows)
    _check(module(taken).detach().numpy(), m, rows, "TorchScript")
    torch.jit.trace(module, taken).save(str(folder / "model.pt"))
    (folder / "signature.json").write_text(json.dumps({"input_shape": m.input_shape, "dtype": m.dtype}))
    config = folder / "model-config.yaml"
    config.write_text("minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 3\nresponseTimeout: 60\n")
    _archive(m, folder)
    return f"{m.name}.mar"


def _archive(m: Model, folder: Path) -> None:
    handler = Path(__file__).with_name("torchserve_handler.py")
    options = {
        "--model-name": m.name,
        "--version": "1.0",
        "--serialized-file": folder / "model.pt",
        "--handler": handler,
        "--extra-files": folder / "signature.json",
        "--config-file": folder / "model-config.yaml",
        "--export-path": folder,
    }
    archiver = [sys.executable, "-m", "model_archiver.model_packaging"]
    subprocess.run([*archiver, *(str(part) for pair in options.items() for part in pair)], check=True)


TRITON_MAX_BATCH = 4096
TRITON_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "bytes": "TYPE_STRING"}

_TRITON_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "x" data_type: {type} dims: {inputs} }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: {outputs} }}]
"""


def triton(m: Model, folder: Path) -> str:
    """Write a Triton model repository with this model, version 1, for the Python backend."""
    from infscale.models import triton_model

    rows = inputs(m.name, 8)
    _check(triton_model.FORWARD[m.name](m.weights, rows), m, rows, "Triton's model.py")
    version = folder / "repository" / m.name / "1"
    version.mkdir(parents=True)
    shutil.copy(str(triton_model.__file__), version / "model.py")
    np.savez(version / "weights.npz", **m.weights)
    shapes = {"inputs": list(m.input_shape) or [1], "outputs": list(m.output_shape), "type": TRITON_TYPES[m.dtype]}
    text = _TRITON_CONFIG.format(name=m.name, batch=TRITON_MAX_BATCH, **shapes)
    (version.parent / "config.pbtxt").write_text(text)
    return "repository"


def _torch_module(m: Model) -> Any:
    import torch
    from torch import nn

    if m.name == "noop":
        return nn.Identity()
    w = {key: torch.from_numpy(value) for key, value in m.weights.items()}

    def linear(weight: str, bias: str) -> Any:
        layer = nn.Linear(*w[weight].shape)
        layer.weight.data, layer.bias.data = w[weight].T.contiguous(), w[bias]
        return layer

    def conv(kernel: str, bias: str) -> list[Any]:
        layer = nn.Conv2d(w[kernel].shape[2], w[kernel].shape[3], 3)
        layer.weight.data, layer.bias.data = w[kernel].permute(3, 2, 0, 1).contiguous(), w[bias]
        return [layer, nn.ReLU(), nn.MaxPool2d(2)]

    if m.name in ("image", "photo"):

        class Blocks(nn.Module):  # type: ignore[misc]  # torch is untyped here
            """Means of blocks of pixels in [0, 1]: (n, 224, 224, 3) → (n, 147)."""

            def forward(self, x: Any) -> Any:
                return x.float().reshape(-1, 7, 32, 7, 32, 3).mean((2, 4)).flatten(1) / 255

        return nn.Sequential(Blocks(), linear("dense", "bias"), nn.Softmax(-1))
    if m.name == "mlp":
        return nn.Sequential(linear("dense1", "bias1"), nn.ReLU(), linear("dense2", "bias2"), nn.Softmax(-1))

    class ChannelsLast(nn.Module):  # type: ignore[misc]  # torch is untyped here
        """Flatten as the reference does: (n, c, h, w) → (n, h·w·c)."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    convolutions = [*conv("conv1", "bias1"), *conv("conv2", "bias2")]
    first = nn.Unflatten(1, (1, 28))
    return nn.Sequential(first, *convolutions, ChannelsLast(), linear("dense3", "bias3"), nn.Softmax(-1))


def _check(answer: Array, m: Model, rows: Rows, what: str) -> None:
    difference, accepted = max_difference(answer, m.predict(rows)), PARITY[m.dtype]
    if difference > accepted:
        raise SystemExit(f"{what} differs from the reference by {difference:.2e}; accepted: {accepted:.0e}")


def main() -> None:
    """Export ``argv[1]`` as ``argv[2]`` into ``argv[3]``/built."""
    name, kind, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3]) / "built"
    folder.mkdir()
    path = {"savedmodel": savedmodel, "mar": mar, "triton": triton}[kind](model(name), folder)
    description = {"model": name, "kind": kind, "digest": model(name).digest, "path": path}
    (folder / "export.json").write_text(json.dumps(description))


if __name__ == "__main__":
    main()
