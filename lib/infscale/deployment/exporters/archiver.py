"""TorchServe's model archiver, which packs a handler of this project and other files."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_CONFIG = "minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 3\nresponseTimeout: 60\n"


def archive(model: str, handler: Path, folder: Path, files: Mapping[str, Path]) -> str:
    """Pack the file ``handler`` and ``files`` (by the archiver's option) in ``folder``.

    Return the archive's name.
    """
    config = folder / "model-config.yaml"
    config.write_text(_CONFIG)
    options = {
        "--model-name": model,
        "--version": "1.0",
        "--handler": handler,
        "--config-file": config,
        "--export-path": folder,
        **files,
    }
    archiver = [sys.executable, "-m", "model_archiver.model_packaging"]
    subprocess.run([*archiver, *(str(part) for pair in options.items() for part in pair)], check=True)
    return f"{model}.mar"
