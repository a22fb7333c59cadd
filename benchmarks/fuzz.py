"""A million hostile inputs for every parser of :mod:`benchmarks.hostile`, guided by coverage (atheris, libFuzzer).

    python -m benchmarks.fuzz [NAME...] [--runs 1000000]

Each parser has a process of its own, which ends at the first input that takes 10 s or 2 GiB, libraries included, or
raises an error that its callers do not expect; that input is kept as a file ``crash-…`` or ``timeout-…`` in the working
directory.
"""

import argparse
import subprocess
import sys
import tempfile
import time

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

    failed = []
    for target in hostile.TARGETS:
        name = target.__name__
        if options.names and name not in options.names:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, "-m", "benchmarks.fuzz", name, "--runs", str(options.runs), "--corpus", corpus]
            ended = subprocess.run(command, capture_output=True, text=True)
        seconds, how = time.monotonic() - began, "failed" if ended.returncode else "passed"
        print(f"{name}: {options.runs:,} cases, {seconds:.0f} s, {how}", flush=True)
        if ended.returncode:
            failed.append(name)
            print(ended.stderr[-4000:], flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
