"""Programs and packages that are installed on this machine."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Where Debian puts programs of the system, which are not on every user's PATH."""
PATIENCE_S = 1.0
"""Longest time that a program may take to tell its version, seconds."""


@dataclass(frozen=True)
class Requirement:
    """Something that has to be installed, and what of it is on this machine.

    Attributes:
        name: what was looked for.
        present: what is here, such as its version; empty if nothing usable is.
        enables: what it is for.
        get: how to get it; empty where nothing can be done.
        needed: whether the main job (``make paper``) cannot run without it.
    """

    name: str
    present: str
    enables: str
    get: str = ""
    needed: bool = False


@contextlib.contextmanager
def native_log(name: str, beside: Path | None) -> Iterator[None]:
    """Send what native code of this process writes to standard error to ``name.log``, while the context lasts.

    For importing TensorFlow, whose first lines no setting of its own keeps out of a notebook. Errors of Python are
    shown as ever.

    Args:
        name: of the log.
        beside: a file of the folder that it goes to, such as a server's log; None leaves standard error alone.
    """
    if beside is None:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with beside.with_name(f"{name}.log").open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def find_program(name: str) -> str | None:
    """Return the path of a program on PATH or in :data:`SYSTEM_FOLDERS`, or None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))


def first_line(command: Sequence[str]) -> str:
    """Return the first line that a command prints on either stream; empty if it fails, or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (result.stdout + result.stderr).strip().splitlines()
    return (lines[0].strip() if lines else "yes") if result.returncode == 0 else ""


def package_version(modules: Sequence[str], package: str) -> str:
    """Return the version of ``package``, or an empty text if one of its ``modules`` cannot be imported."""
    from importlib.metadata import PackageNotFoundError, version  # costs more than all else here

    if any(importlib.util.find_spec(module) is None for module in modules):
        return ""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
