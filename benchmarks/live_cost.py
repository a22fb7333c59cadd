"""What the live view costs: CPU of the process that shows it, as a share of the trial's length.

The null server answers; the load engine sends, with the view and without it in alternation, so that the difference is
the view's. Three screens: the figure in a real kernel of Jupyter (with its own threads that send to the browser), the
bar of a terminal (written to a pseudo-terminal), and lines. The engine's own CPU per request is shown beside it: it
writes the memory that the view reads whether anybody looks or not.

    python -m benchmarks.live_cost [--seconds 10] [--rounds 5] [--rate 2000]
"""

import argparse
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from statistics import mean, median, stdev

from jupyter_client.manager import start_new_kernel

from benchmarks.measure import host_state

GOAL = 0.01
"""Largest share of a core that the view may take."""

LOAD = """
import json, time
import numpy as np
from infscale.experiment.live.view import viewing
from infscale.load import schedule
from infscale.load.engine import run as engine

def once(address, rate, seconds, shown, seed):
    at = schedule.poisson(rate, seconds, np.random.SeedSequence(seed))
    choice = np.zeros(len(at), np.int32)
    with viewing() as view, view.load("null server, REST", seconds) as look:
        before = time.process_time()
        result = engine.run(
            f"http://{address}/", [bytes(100)], [at], [choice], timeout_s=5, progress=look if shown else lambda *_: None
        )
        used = time.process_time() - before
    return used / seconds, result.generator.cpu_s / len(at) * 1e6
"""
"""Runs one load, and returns the CPU of this process while it ran, as a share of its length, and that of the engine, µs
a request. The end of a load, at which its rows come in, is in both."""

TERMINAL = "import sys; print('RESULT', json.dumps(once(*json.loads(sys.argv[1]))), flush=True)"


class Kernel:
    """A kernel of Jupyter, whose screen is the figure."""

    def __init__(self) -> None:
        self._manager, self._client = start_new_kernel(kernel_name="python3")
        self._run(LOAD)

    def _run(self, code: str) -> str:
        texts: list[str] = []

        def hook(message: dict[str, object]) -> None:
            content = message["content"]
            assert isinstance(content, dict)
            texts.append(str(content.get("text", "")))

        reply = self._client.execute_interactive(code, allow_stdin=True, output_hook=hook, timeout=600)
        if reply["content"]["status"] != "ok":
            raise SystemExit(f"the kernel failed: {reply['content']}")
        return "".join(texts)

    def once(self, order: list[object]) -> tuple[float, float]:
        """Run one load in the kernel."""
        said = self._run(f"print('RESULT', json.dumps(once(*json.loads({json.dumps(order)!r}))))")
        return _result(said)

    def close(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def in_process(order: list[object], *, terminal: bool) -> tuple[float, float]:
    """Run one load in a process of its own, whose standard error is a terminal or not."""
    command = [sys.executable, "-c", LOAD + TERMINAL, json.dumps(order)]
    owner, other = pty.openpty()
    stderr = other if terminal else subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(other)
        reader = threading.Thread(target=_drain, args=(owner,), daemon=True)
        reader.start()
        said, _ = process.communicate(timeout=600)
    reader.join(5)
    os.close(owner)
    return _result(said)


def _drain(owner: int) -> None:
    try:
        while os.read(owner, 65536):
            pass
    except OSError:  # the other end is closed
        pass


def _result(said: str) -> tuple[float, float]:
    line = next(line for line in said.splitlines() if line.startswith("RESULT "))
    share, engine_us = json.loads(line.removeprefix("RESULT "))
    return share, engine_us


def main() -> None:
    """Measure all screens and print a line for each."""
    from infscale.load.null_server import null_server

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5, help="loads with the view, and as many without")
    parser.add_argument("--rate", type=float, default=2000.0, help="requests/s")
    options = parser.parse_args()
    host, kernel = host_state(), Kernel()
    screens: dict[str, Callable[[list[object]], tuple[float, float]]] = {
        "figure": kernel.once,
        "bar": lambda order: in_process(order, terminal=True),
        "lines": lambda order: in_process(order, terminal=False),
    }
    try:
        with null_server() as server:
            for name, once in screens.items():
                pairs = []
                for seed in range(options.rounds):
                    turn = (True, False) if seed % 2 else (False, True)
                    got = {s: once([server.rest, options.rate, options.seconds, s, seed]) for s in turn}
                    pairs.append((got[True], got[False]))
                extra = [seen[0] - unseen[0] for seen, unseen in pairs]
                engines = [median(one[k][1] for one in pairs) for k in (0, 1)]
                error = f" ± {stdev(extra) / len(extra) ** 0.5:.2%}" if len(extra) > 1 else ""
                print(
                    f"{name}: the view takes {mean(extra):.2%}{error} of a core (at most {max(extra):.2%}; goal "
                    f"{GOAL:.0%}); the process with it {mean(seen[0] for seen, _ in pairs):.2%}; the engine "
                    f"{engines[0]:.1f} µs a request with it, {engines[1]:.1f} without",
                    flush=True,
                )
    finally:
        kernel.close()
    print(host.since())


if __name__ == "__main__":
    main()
