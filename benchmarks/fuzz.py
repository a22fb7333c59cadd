"""A million hostile inputs for every parser of :mod:`benchmarks.hostile`, guided by coverage (atheris, libFuzzer).

    python -m benchmarks.fuzz [NAME...] [--runs 1000000]

Each parser has a process of its own, as many at a time as there are cores, which ends at the first input that takes
10 s or 2 GiB, libraries included, or raises an error that its callers do not expect; that input is kept as a file
``crash-…`` or ``timeout-…`` in the working directory. A million for each takes about an hour on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

RUNS = 1_000_000
LIMITS = ("-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0")


def _fuzz(name: str, runs: int, corpus: str) -> None:
    """Feed one parser, in this process, which ends then."""
    import atheris

    with atheris.instrument_imports(include=["infscale", "hpack"]):
        from benchmarks import hostile
    target = next(target for target in hostile.TARGETS if target.__name__ == name)
    atheris.Setup([sys.argv[0], *LIMITS, f"-runs={runs}", corpus], lambda data: hostile.feed(target, data))
    atheris.Fuzz()


def main() -> None:
    """Read the options and feed each parser; exit code 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parsers; all without any")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--corpus", help="feed one parser, and keep in this folder what reaches new code")
    options = parser.parse_args()
    if options.corpus:
        _fuzz(options.names[0], options.runs, options.corpus)
        return
    from benchmarks import hostile

    known = [target.__name__ for target in hostile.TARGETS]
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda name: _in_a_process(name, options.runs), options.names or known))
    sys.exit(not all(passed))


def _in_a_process(name: str, runs: int) -> bool:
    """Feed one parser, print how it went, and return whether it withstood."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as corpus:
        command = [sys.executable, "-m", "benchmarks.fuzz", name, "--runs", str(runs), "--corpus", corpus]
        ended = subprocess.run(command, capture_output=True, text=True)
    seconds, how = time.monotonic() - began, "failed" if ended.returncode else "passed"
    print(f"{name}: {runs:,} cases, {seconds:.0f} s, {how}", flush=True)
    if ended.returncode:
        print(ended.stderr[-4000:], flush=True)
    return not ended.returncode


if __name__ == "__main__":
    main()
