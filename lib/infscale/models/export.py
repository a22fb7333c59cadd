"""Exports of the reference models, kept by the digest of what made them."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from infscale.errors import DeploymentError, MissingError, one_of
from infscale.models.reference import model
from infscale.paths import models_folder

EXPORTS = ("savedmodel", "mar", "triton")


def export(name: str, kind: str) -> Path:
    """Export a reference model once and return its path: a SavedModel base path, a .mar file, or a Triton repository.

    The export runs in a process of its own: TensorFlow and torch stay out of the caller. The result
    is cached by the digest of the model and of the exporter's source.

    Raises:
        MissingError: the framework is not installed.
        DeploymentError: the exporter failed, with its output.
    """
    one_of("export", kind, EXPORTS)
    source = Path(__file__).with_name("exporters.py")
    sha = hashlib.sha256(model(name).digest.encode() + source.read_bytes())
    for part in ("torchserve_handler.py", "triton_model.py"):  # both go into what is exported
        sha.update(source.with_name(part).read_bytes())
    folder = models_folder() / f"{name}-{kind}-{sha.hexdigest()[:12]}"
    done = folder / "export.json"
    if not done.exists():
        _run_export(name, kind, folder)
    return folder / str(json.loads(done.read_text())["path"])


def _run_export(name: str, kind: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        command = [sys.executable, "-m", "infscale.models.exporters", name, kind, temporary]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        if "ModuleNotFoundError" in result.stderr:
            missing = result.stderr.strip().splitlines()[-1]
            raise MissingError(f"exporting {name} as {kind}: {missing}; get it by pip install 'infscale[servers]'")
        if result.returncode:
            raise DeploymentError(f"exporting {name} as {kind} failed", result.stderr[-4000:])
        built = Path(temporary) / "built"
        if not folder.exists():  # another process may have been first
            os.rename(built, folder)
