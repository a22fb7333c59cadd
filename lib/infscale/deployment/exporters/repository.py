"""Export a reference model as a Triton model repository, for the Python backend."""

import shutil
from pathlib import Path

import numpy as np

from infscale.deployment.exporters import triton_model
from infscale.models.export import check_parity, run
from infscale.models.reference import Model, inputs

MAX_BATCH = 4096
"""Most rows of a request or batch."""
TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "bytes": "TYPE_STRING"}
"""Triton's names of the reference models' ``dtype``."""

_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "x" data_type: {type} dims: {inputs} }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: {outputs} }}]
"""


def write(model: Model, folder: Path) -> str:
    """Write a repository with version 1 of this model, and return its folder's name."""
    rows = inputs(model.name, 8)
    check_parity(triton_model.FORWARD[model.name](model.weights, rows), model, rows, "Triton's model.py")
    version = folder / "repository" / model.name / "1"
    version.mkdir(parents=True)
    shutil.copy(str(triton_model.__file__), version / "model.py")
    np.savez(version / "weights.npz", **model.weights)
    shapes = {"inputs": list(model.input_shape) or [1], "outputs": list(model.output_shape), "type": TYPES[model.dtype]}
    text = _CONFIG.format(name=model.name, batch=MAX_BATCH, **shapes)
    (version.parent / "config.pbtxt").write_text(text)
    return "repository"


if __name__ == "__main__":
    run(write)
