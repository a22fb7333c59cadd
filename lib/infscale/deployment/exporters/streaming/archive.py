"""Export the reference model ``stream`` as a TorchServe model archive (.mar): a handler alone."""

from pathlib import Path

from infscale.deployment.exporters.archiver import archive
from infscale.models.export import run_without_weights
from infscale.models.stream import NAME


def write(folder: Path) -> str:
    """Write the archive and return its name."""
    return archive(NAME, Path(__file__).with_name("torchserve_handler.py"), folder, {})


if __name__ == "__main__":
    run_without_weights(write)
