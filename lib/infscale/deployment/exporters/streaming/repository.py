"""Export the reference model ``stream`` as a Triton model repository: a decoupled model for the Python backend."""

import shutil
from pathlib import Path

from infscale.deployment.exporters.streaming import triton_model
from infscale.models.export import run_without_weights
from infscale.models.stream import NAME

_INPUT = 'input [{{ name: "{name}" data_type: TYPE_INT64 dims: 1 }}]\n'
_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
output [{{ name: "text" data_type: TYPE_STRING dims: 1 }}]
"""


def write(folder: Path) -> str:
    """Write a repository with version 1 of the model, and return its folder's name."""
    version = folder / "repository" / NAME / "1"
    version.mkdir(parents=True)
    shutil.copy(str(triton_model.__file__), version / "model.py")
    inputs = (_INPUT.format(name=name) for name in triton_model.FIELDS)
    (version.parent / "config.pbtxt").write_text(_CONFIG.format(name=NAME) + "".join(inputs))
    return "repository"


if __name__ == "__main__":
    run_without_weights(write)
