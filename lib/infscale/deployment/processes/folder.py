"""Working folders of servers, removed at the end."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

_PREFIX = "infscale-"


def _check_writable(log: Path) -> None:
    """Raise OSError if nothing can be written; a full disk shows itself at the first byte only."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file:
        size = file.tell()
        file.write(b"\n")
        file.truncate(size)


@contextlib.contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """A short-named temporary folder (socket paths must stay under 107 bytes), removed at the end.

    Folders of owners that no longer live are removed first.
    """
    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{_PREFIX}*-*"):
        owner = old.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
