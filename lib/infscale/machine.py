"""Facts about the machine, the packages and the code, for manifests; and the host's state during a trial."""

import hashlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import msgspec


def _first_line(path: str, prefix: str = "") -> str | None:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(prefix):
                    return line.partition(":")[2].strip() if prefix else line.strip()
    except OSError:
        pass
    return None


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tells machines apart.

    Attributes:
        cpu: the processor's model.
        cores: usable ones.
        governor: how the CPU frequency is chosen; None where the system does not tell.
        memory_gib: installed memory, GiB.
        kernel, os, python: versions.
        caches: sizes of the first core's caches, such as "L1d 32K, L2 2048K": hosts of one cloud image differ in them.
    """

    cpu: str
    cores: int
    governor: str | None
    memory_gib: float
    kernel: str
    os: str
    python: str
    caches: str = ""

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of SHA-256 over all fields."""
        return _digest([msgspec.json.encode(self)])


def describe() -> Machine:
    """Return what this machine is."""
    return Machine(
        cpu=_first_line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        cores=len(os.sched_getaffinity(0)),
        governor=_first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        kernel=platform.release(),
        os=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        python=platform.python_version(),
        caches=_caches(),
    )


def _caches() -> str:
    levels = []
    for place in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_first_line(str(place / name)) for name in ("level", "type", "size"))
        if level and kind and size:
            levels.append(f"L{level}{kind[0].lower() if kind in ('Data', 'Instruction') else ''} {size}")
    return ", ".join(levels)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast a machine does fixed work in one process, each in operations per second.

    Attributes:
        python: additions in a Python loop.
        numpy: multiplications of two 128 × 128 matrices of float64.
        calls: system calls that do next to nothing.
        loopback: round trips of one byte over a TCP connection on the loopback interface.
    """

    python: float
    numpy: float
    calls: float
    loopback: float


CALIBRATION_S = 0.25
"""Time for each part of the calibration, s."""


def calibrate() -> Calibration:
    """Measure how fast this machine does fixed work; takes a second."""
    import numpy as np

    matrix = np.linspace(0, 1, 128 * 128).reshape(128, 128)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> None:
            near.send(b"x")
            far.recv(1)
            far.send(b"x")
            near.recv(1)

        return Calibration(
            python=1000 * _per_s(lambda: sum(range(1000))),
            numpy=_per_s(lambda: matrix @ matrix),
            calls=_per_s(os.getppid),
            loopback=_per_s(round_trip),
        )


def _per_s(work: Callable[[], object]) -> float:
    """Return how often ``work`` is done in a second, to three digits."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < CALIBRATION_S:
        work()
        count += 1
    return float(f"{count / elapsed:.3g}")


def versions() -> dict[str, str]:
    """Return every installed package and its version, by name."""
    return dict(_installed())


@cache  # because every package's description is read
def _installed() -> list[tuple[str, str]]:
    packages = (distribution.metadata for distribution in distributions())
    return sorted((package["Name"].lower(), package["Version"]) for package in packages)


def environment_digest() -> str:
    """Return SHA-256 over the interpreter's version and all packages, first 16 hexadecimal digits."""
    return _digest([sys.version.encode(), *(f"{k}=={v}".encode() for k, v in versions().items())])


MEASURING = (
    "vocabulary.py",
    "programs.py",
    "models",
    "payloads",
    "servers",
    "deployment",
    "load",
    "experiment",
    "records",
)
"""Files and folders of the package that measure; the others begin from stored rows."""


def code_digest() -> str:
    """Return the first 16 hexadecimal digits of SHA-256 over the source that measures (:data:`MEASURING`).

    A new commit does not change it, nor does work on figures or tables.
    """
    package = Path(__file__).parent
    places = [package / name for name in MEASURING]
    files = sorted(p for place in places for p in ([place] if place.is_file() else place.rglob("*")))
    sources = [p for p in files if p.suffix in {".py", ".xml"}]
    return _digest([part for p in sources for part in (str(p.relative_to(package)).encode(), p.read_bytes())])


def _digest(parts: list[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:16]


CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of the checkout whose code this is; of an installed package, a folder that is none."""

TRACKED = ("lib", "notebooks", "requirements.txt", "pyproject.toml")
"""Files and folders whose changes make a checkout dirty; not the figures, which every run draws anew."""

NEW = ("lib/*.py", ":(exclude,glob)**/.ipynb_checkpoints/**")
"""Patterns of the files that make a checkout dirty although git does not know them, also where it ignores them."""


def commit(root: Path = CHECKOUT) -> str:
    """Return the commit of the code that runs, with ``-dirty`` if what measures differs from it or is not in it.

    It is "unknown" outside a repository of its own: that of a repository around it says nothing about this code.
    """
    try:
        place, name, _ = _git(root, "rev-parse", "--show-prefix", "--short=12", "HEAD").split("\n")
        if place:
            return "unknown"
        changed = _git(root, "diff", "-z", "--name-only", "HEAD", "--", *TRACKED)
        new = _git(root, "ls-files", "-z", "--others", "--", *NEW)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    dirty = any(_differs(root, file) for file in (changed + new).split("\0") if file)
    return name + ("-dirty" if dirty else "")


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints about the repository in which ``root`` lies."""
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True, timeout=30)  # noqa: S607 - git as the user has it
    return os.fsdecode(result.stdout)


def _differs(root: Path, file: str) -> bool:
    """Return whether a changed file is another one for who runs it: of a notebook only what is executed counts."""
    if not file.endswith(".ipynb"):
        return True
    try:
        return _executed(os.fsencode(_git(root, "show", f"HEAD:{file}"))) != _executed((root / file).read_bytes())
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError, UnicodeDecodeError):
        return True


class _Cell(msgspec.Struct):
    cell_type: str
    source: str | list[str]
    metadata: dict[str, object]


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def _executed(text: bytes) -> list[tuple[str, object]]:
    """Return the code of a notebook's cells and their tags, without all else that JupyterLab changes when it saves."""
    cells = msgspec.json.decode(text, type=_Notebook).cells
    return [("".join(cell.source), cell.metadata.get("tags")) for cell in cells if cell.cell_type == "code"]


def split_cores() -> tuple[set[int], set[int]] | None:
    """Return cores for the engine and for the servers, or None below four cores, where neither can be spared."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 4:
        return None
    return {cores[-1]}, set(cores[:-1])


def steal_ticks() -> tuple[int, int]:
    """Return ticks that the hypervisor took away, and all ticks, since boot (both 0 where the kernel does not say)."""
    line = _first_line("/proc/stat") or ""
    ticks = [int(t) for t in line.split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)
