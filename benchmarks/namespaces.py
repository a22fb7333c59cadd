"""Machines of a small network on this one: network namespaces on a bridge, each behind a link of a known rate.

    python -m benchmarks.namespaces --rate-mbit 100 --workers 2 -- --rate 500 --duration 5

loads the null server, which runs in a namespace of its own, from Dask workers in others, without SSH: a scheduler and
the command ``infscale load`` run in a further one. What follows ``--`` are options of ``infscale load``. Needs root and
``ip``; nothing leaves the machine. All namespaces share this machine's clock, so that what the load says of its
workers' clocks is nothing but error.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infscale.deployment.fronts.link import Link, leftovers

SWITCH, NETWORK = 0, "10.201.0"
"""Number of the namespace with the bridge, and the network of the machines, which no other namespace can reach."""

PATIENCE_S = 120
"""Longest wait for a scheduler to write where it is, s."""

_numbers = itertools.count(1000)


@dataclass(frozen=True)
class Machine:
    """A namespace: its name, and its address in the network."""

    name: str
    address: str

    def command(self, *words: str) -> list[str]:
        """Return a command that runs in it."""
        return ["ip", "netns", "exec", self.name, *words]

    def start(self, *words: str, **options: object) -> "subprocess.Popen[bytes]":
        """Start a command in it."""
        return subprocess.Popen(self.command(*words), **options)  # type: ignore[call-overload,no-any-return]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def machines(count: int, link: Link) -> Iterator[list[Machine]]:
    """Make ``count`` machines, each at the end of a link like this, and remove them at the end.

    Raises:
        MissingError: no root, or no ``ip``.
        CalledProcessError: the kernel has no bridge, no veth, or not the shaping.
    """
    for left in leftovers():
        _ip("netns", "del", left)
    base = next(_numbers) * 100
    switch, *names = (f"infscale-{os.getpid()}-{base + k}" for k in range(count + 1))
    with contextlib.ExitStack() as stack:
        for name in (switch, *names):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        found = []
        for k, name in enumerate(names, start=1):
            _ip("-n", switch, "link", "add", f"p{k}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", f"p{k}", "master", "br0", "up")
            _ip("-n", name, "addr", "add", f"{NETWORK}.{k}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            for place, device in ((switch, f"p{k}"), (name, "eth0")):
                for shaping in link.queueing():
                    words = ["tc", "-n", place, "qdisc", "add", "dev", device, *shaping]
                    subprocess.run(words, check=True, capture_output=True, timeout=30)
            found.append(Machine(name, f"{NETWORK}.{k}"))
        yield found


@contextlib.contextmanager
def ending(*processes: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End processes with the context."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def served(machine: Machine) -> Iterator[str]:
    """Run the null server on a machine; yield ``host:port`` of its HTTP/1.1."""
    spec = {
        "host": machine.address,
        "reply_bytes": 2,
        "chunked": False,
        "max_streams": None,
        "fifo": False,
        "service_bytes": 0,
        "workers": 1,
        "cores": None,
        "real_time": True,
        "stream": None,
    }
    words = [sys.executable, "-m", "infscale.servers.null.process"]
    server = machine.start(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    with ending(server):
        server.stdin.write(json.dumps(spec).encode() + b"\n")
        server.stdin.flush()
        yield f"{machine.address}:{json.loads(server.stdout.readline())['rest']}"


@contextlib.contextmanager
def scheduled(scheduler: Machine, workers: Sequence[Machine], folder: Path) -> Iterator[str]:
    """Run Dask's scheduler on one machine and a worker on each of the others; yield the scheduler's address."""
    file, log = folder / "scheduler.json", folder / "dask.log"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", "8786"]
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        quiet = {"stdout": out, "stderr": out}
        options = ["--host", scheduler.address, "--scheduler-file", str(file)]
        process = scheduler.start(*dask, *options, **quiet)
        stack.enter_context(ending(process))
        end = time.monotonic() + PATIENCE_S
        while not (file.exists() and file.stat().st_size):
            if time.monotonic() > end or process.poll() is not None:
                raise TimeoutError(f"the scheduler did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        address = f"tcp://{scheduler.address}:8786"
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        for one in workers:
            # No nanny here: it is for a worker that ends, and takes memory and time.
            options = ["--no-nanny", "--host", one.address]
            stack.enter_context(ending(one.start(*worker, *options, **quiet)))
        yield address


def load(link: Link, workers: int, options: Sequence[str], folder: Path) -> int:
    """Run ``infscale load`` on one machine, with workers on others, against the null server on another one."""
    with (
        machines(2 + workers, link) as (driver, target, *others),
        served(target) as address,
        scheduled(driver, others, folder) as scheduler,
    ):
        words = [sys.executable, "-m", "infscale.cli", "load", f"http://{address}/", "--cluster", scheduler]
        return subprocess.run(driver.command(*words, "--workers", str(workers), *options), check=False).returncode


def main() -> None:
    """Run the command line's load."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rate-mbit", type=float, default=100, help="rate of every machine's link, Mb/s; 0 for no limit"
    )
    parser.add_argument("--delay-ms", type=float, default=0, help="round-trip delay of a link, ms (needs netem)")
    parser.add_argument("--workers", type=int, default=2, help="machines that make the load")
    parser.add_argument("options", nargs="*", help="options of infscale load, after --")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(load(Link(said.rate_mbit or None, said.delay_ms), said.workers, said.options, Path(folder)))


if __name__ == "__main__":
    main()
