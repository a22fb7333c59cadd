"""Temporary folders for servers, removed at the end, and copies in them."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

_PREFIX = "infscale-"


def check_writable(log: Path) -> None:
    """Check that a log file can be written; a full disk shows itself only when the first byte is written.

    Raises:
        OSError: it cannot.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file:
        size = file.tell()
        file.write(b"\n")
        file.truncate(size)


@contextlib.contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """Make a temporary folder, and remove it at the end. Its name is short: paths of sockets stay under 107 bytes.

    Folders whose owner no longer lives are removed first.
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


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder so that the copy can be written and removed, also where the original is read-only.

    Raises:
        OSError: it cannot be read, or the copy not be written.
    """
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | (stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR))
