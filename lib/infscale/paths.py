"""Where things are: found from the working directory, so that notebooks run from anywhere inside."""

import sys
from pathlib import Path


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above ``start`` (default: the working directory) that holds the project.

    Outside a checkout it is ``start`` itself, so that an installed package writes where it is used.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "lib" / "infscale").is_dir():
            return folder
    return here


def in_project(path: Path | str) -> Path:
    """Return the absolute path of ``path``; a relative one begins at the project's root, wherever this is called."""
    return project_root() / path


def notebooks_folder() -> Path:
    """The folder of the project's notebooks: the checkout's; outside of one, those that the package brought along."""
    brought = Path(sys.prefix) / "share" / "infscale" / "notebooks"
    here, own = in_project("notebooks"), Path(__file__).parents[2] / "notebooks"
    return next((folder for folder in (here, own) if folder.is_dir()), brought)


def models_folder() -> Path:
    """The folder of exported models (a cache: safe to delete)."""
    return in_project("data/models")
