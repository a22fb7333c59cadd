"""Exports of the reference models, kept by the digest of what made them."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from infscale.errors import DeploymentError, MissingError
from infscale.models.reference import Array, Model, Rows, max_difference, model
from infscale.paths import models_folder

PARITY = {"float32": 1e-5, "uint8": 1e-5, "bytes": 1e-2}
"""Largest accepted absolute difference between an export and the numpy reference, by the ``dtype`` of the model's rows.

Libraries decode a JPEG to pixels that differ by a step or two: their inverse transforms round differently.
"""


def export(name: str, exporter: str, copied: Sequence[str] = (), *, weights: bool = True) -> Path:
    """Export a reference model once and return the path of the result.

    ``exporter`` is a module that calls :func:`run`; it is started in a process of its own, so that its framework stays
    out of this one. ``copied`` are modules, as paths from its folder, whose source goes into the export. The result is
    cached by the digest of the model, unless it is one without ``weights``, and of all this source.

    Raises:
        MissingError: the framework is not installed.
        DeploymentError: the exporter failed; its output is part of the message.
    """
    source = _source(exporter)
    sha = hashlib.sha256((model(name).digest if weights else name).encode() + source.read_bytes())
    for module in copied:
        sha.update((source.parent / f"{module}.py").read_bytes())
    folder = models_folder() / f"{name}-{source.stem}-{sha.hexdigest()[:12]}"
    description = folder / "export.json"
    if not description.exists():
        _start(name, exporter, folder)
    return folder / str(json.loads(description.read_text())["path"])


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _start(name: str, exporter: str, folder: Path) -> None:
    kind = exporter.rpartition(".")[2]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        command = [sys.executable, "-m", exporter, name, temporary]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        if "ModuleNotFoundError" in result.stderr:
            missing = result.stderr.strip().splitlines()[-1]
            raise MissingError(f"exporting {name} as {kind}: {missing}; get it by pip install 'infscale[servers]'")
        if result.returncode:
            raise DeploymentError(f"exporting {name} as {kind} failed", result.stderr[-4000:])
        built = Path(temporary) / "built"
        if not folder.exists():  # another process may have been first
            os.rename(built, folder)


def run(write: Callable[[Model, Path], str]) -> None:
    """Export the reference model ``argv[1]`` into ``argv[2]``/built, as the main function of an exporter.

    ``write`` gets the model and the folder, and returns the path of the export within the folder.
    """
    exported = model(sys.argv[1])
    _write(exported.digest, lambda folder: write(exported, folder))


def run_without_weights(write: Callable[[Path], str]) -> None:
    """Do as :func:`run` for a model that is its source alone; ``write`` gets the folder."""
    _write("", write)


def _write(digest: str, write: Callable[[Path], str]) -> None:
    name, folder = sys.argv[1], Path(sys.argv[2]) / "built"
    folder.mkdir()
    description = {"model": name, "digest": digest, "path": write(folder)}
    (folder / "export.json").write_text(json.dumps(description))


def check_parity(answer: Array, exported: Model, rows: Rows, what: str) -> None:
    """Check that an export computes what the numpy reference does.

    Raises:
        SystemExit: it does not, within :data:`PARITY`.
    """
    difference, accepted = max_difference(answer, exported.predict(rows)), PARITY[exported.dtype]
    if difference > accepted:
        raise SystemExit(f"{what} differs from the reference by {difference:.2e}; accepted: {accepted:.0e}")
