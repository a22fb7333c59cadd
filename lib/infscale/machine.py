"""Facts about the machine, the packages and the code, for manifests; and the host's state during a trial."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from infscale.paths import project_root


def _first_line(path: str, prefix: str = "") -> str | None:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(prefix):
                    return line.partition(":")[2].strip() if prefix else line.strip()
    except OSError:
        pass
    return None


def describe() -> dict[str, Any]:
    """What the machine is: CPU model, usable cores, governor, memory, kernel, system, clock."""
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
    }


def machine_digest() -> str:
    """SHA-256 over what :func:`describe` tells, first 16 hexadecimal digits."""
    return _digest([f"{key}={value}".encode() for key, value in describe().items()])


def versions() -> dict[str, str]:
    """Every installed package and its version, by name."""
    return dict(sorted((d.metadata["Name"].lower(), d.version) for d in distributions()))


def environment_digest() -> str:
    """SHA-256 over the interpreter's version and all packages, first 16 hexadecimal digits."""
    return _digest([sys.version.encode(), *(f"{k}=={v}".encode() for k, v in versions().items())])


_AFTER_MEASURING = {
    *("captions", "distributions", "estimates", "figures", "findings", "infscale", "paper", "queues", "report", "runs"),
    *(
        "cases",
        "cost",
        "figures_caching",
        "figures_study",
        "figures_usage",
        "studies",
        "study_answers",
        "study_ratios",
        "study_topology",
        "study_report",
        "study_tables",
    ),
    "usage_table",
    *("figures_balancing", "scaling"),
    *("figure_parts", "figures_detail", "power", "saturation", "steady", "summary", "trial_table"),
    *("compare", "compare_options", "doctor", "drawing", "load", "load_options", "load_report", "load_trace", "serve"),
}


def code_digest() -> str:
    """SHA-256 over the source that measures, first 16 hexadecimal digits.

    A new commit does not change it, nor does work on figures or tables, which begin from stored rows.
    """
    package = Path(__file__).parent
    kinds = {".py", ".xml"}
    files = sorted(p for p in package.rglob("*") if p.suffix in kinds and p.stem not in _AFTER_MEASURING)
    return _digest([part for p in files for part in (str(p.relative_to(package)).encode(), p.read_bytes())])


def _digest(parts: list[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:16]


def commit() -> str:
    """The checkout's commit, with ``-dirty`` if what measures differs from it; "unknown" outside git."""
    git = ["git", "-C", str(project_root())]
    what = ["lib", "notebooks", "requirements.txt", "pyproject.toml"]  # not the figures, which every run draws anew
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, check=True, timeout=30)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *what], timeout=30, check=False).returncode
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return name.stdout.decode().strip() + ("-dirty" if changed else "")


def split_cores() -> tuple[set[int], set[int]] | None:
    """Cores for the engine and for the servers, or None below four cores, where neither can be spared."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 4:
        return None
    return {cores[-1]}, set(cores[:-1])


def steal_ticks() -> tuple[int, int]:
    """Ticks that the hypervisor took away, and all ticks, since boot (both 0 where the kernel does not say)."""
    line = _first_line("/proc/stat") or ""
    ticks = [int(t) for t in line.split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)
