"""The clients: one function per tool, each runs one load and returns what it says and what it cost.

Every function has the signature ``(target, load, folder) -> (Outcome, Usage)``; ``folder`` is a scratch folder.
"""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import infscale
from benchmarks.measure import Usage, run
from benchmarks.peers import get_peers, parse
from benchmarks.peers.ours_client import Order
from benchmarks.peers.parse import CLOSED, SENT, Outcome
from benchmarks.target import Target

ROOT = Path(__file__).parents[2]
MOST = 0.0
"""The rate that stands for the most that a client can do."""
OVERLOAD_PER_S = {"triton": 40_000.0, "null": 200_000.0}
"""Offered by an open loop that is asked for the most it can do: well above what that server answered to anyone."""
OVERLOAD_REQUESTS = {"triton": 30_000, "null": 60_000}
"""How many requests such a run has at most, so that it ends in seconds."""
CONNECTIONS = 64
"""Of wrk, h2load and hey over HTTP/1.1; requests in flight of perf_analyzer's closed loop."""
STREAMS = 32
"""In flight on h2load's single connection."""
USERS = 100
"""Of Locust."""
WORKERS = 16
"""Threads of LoadGen's REST client."""
LOADGEN_MOST = 12_000
"""LoadGen ends by a count of queries: above what it can do, a count for its time would take many times as long."""


@dataclass(frozen=True)
class Load:
    """What to offer: ``rate_per_s`` of :data:`MOST` means the most that the client can do.

    ``timestamps`` asks perf_analyzer for those of each request, without which its delivered rate is not known; they
    cost it CPU and memory, so that no run serves both.
    """

    protocol: str
    rate_per_s: float
    seconds: float
    seed: int = 1
    timestamps: bool = False

    def offered_per_s(self, target: Target) -> float:
        """The rate, or the overload of that server in its place."""
        return self.rate_per_s or OVERLOAD_PER_S[target.server]

    def count(self, target: Target) -> int:
        """How many requests that is, for clients that count."""
        wanted = int(self.offered_per_s(target) * self.seconds)
        return wanted if self.rate_per_s else min(wanted, OVERLOAD_REQUESTS[target.server])

    @property
    def limit_s(self) -> float:
        """When a run is given up."""
        return 2 * self.seconds + 15.0


Run = Callable[[Target, Load, Path], tuple[Outcome, Usage]]


def whole(seconds: float) -> int:
    """Seconds for clients that take whole ones only."""
    return max(1, math.ceil(seconds))


def _url(target: Target, protocol: str) -> str:
    address = {"rest": target.rest, "grpc": target.grpc}[protocol]
    return f"http://{address}{target.path[protocol]}"


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _path() -> dict[str, str]:
    """So that ``benchmarks`` is found from a scratch folder."""
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def ours(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """The engine, one shard; its whole client is measured: parent, engine process, samples table."""
    (body := folder / "body").write_bytes(target.body[load.protocol])
    headers = dict(target.headers[load.protocol])
    rate = load.offered_per_s(target)
    order = Order(target.url(load.protocol), str(body), rate, load.count(target) / rate, load.seed, headers)
    command = _python("benchmarks.peers.ours_client", json.dumps(asdict(order)))
    usage = run(command, folder, timeout_s=load.limit_s, env=_path())
    return parse.ours((folder / "stdout").read_text()), usage


def perf_analyzer(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """``-a`` and Poisson: an open loop, whose clock starts at the actual send.

    Above what it can send that mode never ends (2.51), so that its most is asked for in its closed loop.
    """
    values = {"data": [{target.input_name: {"content": target.values, "shape": [len(target.values)]}}]}
    (folder / "input.json").write_text(json.dumps(values))
    protocol, address = {"rest": ("http", target.rest), "grpc": ("grpc", target.grpc)}[load.protocol]
    command = [str(get_peers.FOLDER / get_peers.PROGRAM), "-m", target.model, "-i", protocol, "-u", address, "-a"]
    command += ["--input-data", "input.json", "--request-count", str(load.count(target))]
    if load.rate_per_s:
        command += ["--request-distribution", "poisson", "--request-rate-range", f"{load.rate_per_s:.0f}"]
    else:
        command += ["--concurrency-range", str(CONNECTIONS)]
    command += ["--profile-export-file", "export.json"] if load.timestamps else []
    usage = run(command, folder, timeout_s=load.limit_s, env={"LD_LIBRARY_PATH": str(get_peers.FOLDER)})
    export = (folder / "export.json").read_text() if load.timestamps else ""
    return parse.perf_analyzer(usage.text, SENT if load.rate_per_s else CLOSED, export), usage


def locust(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """FastHttpUser; see :mod:`benchmarks.peers.locust_client`."""
    (body := folder / "body").write_bytes(target.body["rest"])
    env = {
        "BENCH_RATE": str(load.rate_per_s),
        "BENCH_USERS": str(USERS),
        "BENCH_PATH": target.path["rest"],
        "BENCH_BODY": str(body),
        "BENCH_HEADERS": "\n".join(f"{k}={v}" for k, v in target.headers["rest"].items()),
        "BENCH_SEED": str(load.seed),
    }
    command = _python("locust", "-f", str(Path(__file__).with_name("locust_client.py")), "--headless", "--json")
    command += ["-u", str(USERS), "-r", str(USERS), "-t", f"{whole(load.seconds)}s", "-H", f"http://{target.rest}"]
    command += ["--skip-log", "--exit-code-on-error", "0"]
    usage = run(command, folder, timeout_s=load.limit_s, env=env)
    return parse.locust(usage.text, SENT if load.rate_per_s else CLOSED), usage


def loadgen(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """MLPerf LoadGen from Python; see :mod:`benchmarks.peers.loadgen_client`."""
    (body := folder / "body").write_bytes(target.body[load.protocol])
    order = {
        "protocol": load.protocol,
        "address": {"rest": target.rest, "grpc": target.grpc}[load.protocol],
        "path": target.path[load.protocol],
        "headers": dict(target.headers[load.protocol]),
        "body": str(body),
        "rate_per_s": load.offered_per_s(target),
        "count": min(load.count(target), LOADGEN_MOST),
        "workers": WORKERS,
        "seed": load.seed,
    }
    command = _python("benchmarks.peers.loadgen_client", json.dumps(order))
    usage = run(command, folder, timeout_s=load.limit_s, env=_path())
    return parse.loadgen(usage.text, (folder / "mlperf_log_summary.txt").read_text()), usage


def wrk(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """Closed loop, one thread; it cannot be told a rate."""
    target.write_body("rest", folder / "body")
    headers = "".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}\n" for k, v in target.headers["rest"].items())
    script = f'wrk.method = "POST"\n{headers}local f = io.open("body", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
    (folder / "post.lua").write_text(script)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{whole(load.seconds)}s", "--latency", "-s", "post.lua"]
    usage = run([*command, _url(target, "rest")], folder, timeout_s=load.limit_s)
    return parse.wrk(usage.text), usage


def h2load(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """Closed loop. REST: HTTP/1.1 on :data:`CONNECTIONS`; gRPC: one connection. A rate means constant gaps."""
    target.write_body(load.protocol, folder / "body")
    headers = dict(target.headers[load.protocol])
    if load.protocol == "rest":
        shape, clients = ["--h1"], CONNECTIONS
    else:
        shape, clients = [f"-m{STREAMS}"], 1
        headers |= {"content-type": "application/grpc", "te": "trailers"}
    command = ["h2load", *shape, f"-c{clients}", "-t1", "-D", str(whole(load.seconds)), "-d", "body"]
    command += [f"-H{name}: {value}" for name, value in headers.items()]
    if load.rate_per_s:  # the log costs CPU: not where the most requests are counted
        command += [f"--rps={load.rate_per_s / clients:g}", "--log-file=log"]
    usage = run([*command, _url(target, load.protocol)], folder, timeout_s=load.limit_s)
    log = (folder / "log").read_text() if load.rate_per_s else ""
    return parse.h2load(usage.text, log), usage


def hey(target: Target, load: Load, folder: Path) -> tuple[Outcome, Usage]:
    """Closed loop; a rate is shared among its workers, with constant gaps."""
    target.write_body("rest", folder / "body")
    headers = dict(target.headers["rest"])
    command = ["hey", "-z", f"{whole(load.seconds)}s", "-c", str(CONNECTIONS), "-m", "POST", "-D", "body"]
    command += ["-T", headers.pop("content-type", "application/octet-stream")]
    command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    command += ["-q", f"{load.rate_per_s / CONNECTIONS:g}"] if load.rate_per_s else []
    usage = run([*command, _url(target, "rest")], folder, timeout_s=load.limit_s)
    return parse.hey(usage.text), usage


@dataclass(frozen=True)
class Tool:
    """A client: how to run it, where it works, and how it is found.

    Attributes:
        run: see the module.
        protocols: "rest", "grpc".
        servers: names of targets that it can load.
        paced: it can be offered a rate.
        arrivals: of a paced run.
        overload: its open loop can be driven over its limit.
        start_s: seconds of a run beside its load, for the time plan.
        programs, modules: what must be installed.
        how: how to install it; ends with the package's name.
        asks: the option that makes a program tell its version.
    """

    run: Run
    protocols: Sequence[str]
    how: str
    servers: Sequence[str] = ("triton", "null")
    paced: bool = True
    arrivals: str = "poisson"
    overload: bool = False
    start_s: float = 0.2
    programs: Sequence[str] = ()
    modules: Sequence[str] = ()
    asks: str = ""

    def loop(self, rate_per_s: float) -> str:
        """ "open" or "closed"; some have an open loop only while they can keep to the rate."""
        return "open" if self.arrivals == "poisson" and (rate_per_s or self.overload) else "closed"

    def gaps(self, rate_per_s: float) -> str:
        """Between sends: "poisson", "constant" or "none"."""
        return self.arrivals if rate_per_s or self.loop(rate_per_s) == "open" else "none"

    def version(self) -> str:
        """Its version in its own words; "unknown" if it has none to say."""
        if self.modules:
            return version(self.how.split()[-1])
        if not self.asks:
            return "unknown" if self.programs else f"infscale {infscale.__version__}"
        env = {**os.environ, "LD_LIBRARY_PATH": str(get_peers.FOLDER)}
        shown = subprocess.run([self.programs[0], self.asks], capture_output=True, text=True, env=env)
        return (shown.stdout + shown.stderr).strip().partition("\n")[0]

    def missing(self) -> str:
        """Why it cannot run here, or an empty text."""
        lacks = [p for p in self.programs if shutil.which(p) is None]
        lacks += [m for m in self.modules if importlib.util.find_spec(m) is None]
        return f"{', '.join(lacks)} not found; {self.how}" if lacks else ""


_PA = str(get_peers.FOLDER / get_peers.PROGRAM)
BOTH = ("rest", "grpc")
TOOLS = {
    "ours": Tool(ours, BOTH, "this project", overload=True, start_s=1.6),
    "perf_analyzer": Tool(
        perf_analyzer,
        BOTH,
        "python -m benchmarks.peers.get_peers",
        ("triton",),
        start_s=1.0,
        programs=(_PA,),
        asks="--version",
    ),
    "locust": Tool(locust, ("rest",), "pip install locust", start_s=2.5, modules=("locust",)),
    "loadgen": Tool(
        loadgen, BOTH, "pip install mlcommons-loadgen", overload=True, start_s=1.0, modules=("mlperf_loadgen",)
    ),
    "wrk": Tool(wrk, ("rest",), "apt-get install wrk", paced=False, arrivals="none", programs=("wrk",), asks="-v"),
    "h2load": Tool(
        h2load, BOTH, "apt-get install nghttp2-client", arrivals="constant", programs=("h2load",), asks="--version"
    ),
    "hey": Tool(hey, ("rest",), "apt-get install hey", arrivals="constant", programs=("hey",)),
}
