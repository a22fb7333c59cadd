"""What it costs to read what others use: the share of a core of the reading process, and of the one that asks for it.

Ten processes of some threads each that wake up 200 times a second; a reading every 100 ms.

    python -m benchmarks.usage_cost [--processes 10] [--threads 8] [--seconds 10]
"""

import argparse
import subprocess
import sys
import time

import psutil

from infscale.experiment.usage import sampler as usage

WORK = """
import sys, threading, time
def work():
    while True:
        time.sleep(0.005)
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=work, daemon=True).start()
print(flush=True)
work()
"""


def main() -> None:
    """Measure and print both shares, and how many readings came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    command = [sys.executable, "-S", "-c", WORK, str(options.threads)]
    working = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(options.processes)]
    try:
        for process in working:
            assert process.stdout is not None
            process.stdout.readline()
        print(measure(options.seconds))
    finally:
        for process in working:
            process.kill()
            process.wait()


def measure(seconds: float) -> str:
    """The shares in words; the start of the reading process (about 30 ms of CPU) is left out."""
    me = psutil.Process()
    with usage.Sampler({"client": usage.clients, "server": lambda: me.children(recursive=True)}) as sampler:
        reader = psutil.Process(sampler.pid)
        before, own, began = sum(reader.cpu_times()[:2]), time.process_time(), time.monotonic()
        time.sleep(seconds)
        after, wall = sum(reader.cpu_times()[:2]), time.monotonic() - began
        asked = time.process_time() - own
    rows = sampler.rows()
    readings, threads = rows["time_ns"].nunique(), int(rows["threads"].sum() / rows["time_ns"].nunique())
    return (
        f"{rows['pid'].nunique() - 1} processes, {threads} threads, {readings} readings in {wall:.1f} s: "
        f"the reading process {100 * (after - before) / wall:.2f} % of a core, this one {100 * asked / wall:.2f} %"
    )


if __name__ == "__main__":
    main()
