"""Version folders of a model's base path. Apart from the models, because this needs no TensorFlow."""

from pathlib import Path

MAX_INT64 = 2**63 - 1


def versions_at(base: Path) -> dict[int, Path]:
    """Return the version folders that hold a SavedModel; a folder without one is still being copied."""
    found = {}
    for child in base.iterdir() if base.is_dir() else ():
        numeric = child.name.isascii() and child.name.isdigit() and len(child.name) <= 19
        if numeric and int(child.name) <= MAX_INT64 and _has_model(child):
            found[int(child.name)] = child
    return found


def _has_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file() or (folder / "saved_model.pbtxt").is_file()
