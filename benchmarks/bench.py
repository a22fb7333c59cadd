"""The benchmark: the plan, its runs in alternation, the rows. ``python -m benchmarks.bench [--quick]``."""

import argparse
import csv
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks import body, draw, table
from benchmarks.measure import RunError, host_state
from benchmarks.peers.parse import Outcome
from benchmarks.peers.peers import MOST, TOOLS
from benchmarks.plan import BUDGET_S, HALF, Cell, Section, baseline, sections
from benchmarks.target import Keeper
from infscale import machine
from infscale.errors import InfscaleError

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """One run, as a row of results.csv; the columns of :class:`Outcome` follow.

    Attributes:
        rate_per_s: offered; 0 for the most.
        loop: "open" or "closed".
        arrivals: "poisson", "constant", or "none" where each answer is followed by the next send.
        role: "load", "baseline" (a short run: start-up), "timestamps", "memory", "body", "missing".
        alternation: rows of one number ran next to each other.
        seconds: of load.
        started: local time.
        wall_s: of the whole run.
        cpu_user_s, cpu_system_s: of the client's process tree by wait4, start-up included.
        load1, steal: the machine's state; see :class:`benchmarks.measure.Usage`.
        note: why a run failed, or was not made.
    """

    section: str
    server: str
    tool: str
    protocol: str
    rate_per_s: float
    loop: str
    arrivals: str
    role: str
    alternation: int
    seconds: float
    started: str
    wall_s: float = math.nan
    cpu_user_s: float = math.nan
    cpu_system_s: float = math.nan
    load1: float = math.nan
    steal: float = math.nan
    note: str = ""


MOST_ERRORS = 0.01
"""With a larger share of failed requests a run is noted as failed and enters no table."""
MEASURED = ("wall_s", "cpu_user_s", "cpu_system_s", "load1", "steal")
COLUMNS = [f.name for f in fields(Row)] + [f.name for f in fields(Outcome)]


class Book:
    """results.csv, written row by row, so that an ended run keeps what it has; and the rows so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, object]] = []
        self._write(dict(zip(COLUMNS, COLUMNS, strict=True)))

    def add(self, row: Row, outcome: Outcome | None = None) -> None:
        """Write a run; without an outcome its columns are empty."""
        values = asdict(row) | (asdict(outcome) if outcome else {})
        self.rows.append(values)
        self._write({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()})

    def _write(self, values: Mapping[str, object]) -> None:
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(values)

    def half(self, server: str, protocol: str) -> float:
        """Half of what our engine delivered at most there: the median of its runs.

        Raises:
            RunError: no such run succeeded.
        """
        known = {"server": server, "tool": "ours", "protocol": protocol, "rate_per_s": MOST, "role": "load"}
        rates = [r["delivered_per_s"] for r in self.rows if known.items() <= r.items() and not r["note"]]
        if not rates:
            raise RunError(f"no run has told the most over {protocol} on {server}")
        return median(float(str(rate)) for rate in rates) / 2


def run_cell(book: Book, section: Section, keeper: Keeper, cell: Cell, alternation: int, role: str) -> None:
    """Run one cell, and once more if it fails; both attempts are rows."""
    restarts = keeper.restarts
    for _ in range(2):
        done = attempt(book, section, keeper, cell, alternation, role)
        if keeper.restarts > restarts:
            print(f"    {section.server} had ended and was started again")
        if done:
            return


def attempt(book: Book, section: Section, keeper: Keeper, cell: Cell, alternation: int, role: str) -> bool:
    """One run and its row; False, with the reason in the row, if it failed."""
    tool, rate, started = TOOLS[cell.tool], cell.rate_per_s, datetime.now().isoformat(timespec="seconds")

    def row(note: str = "", **measured: Any) -> Row:
        names = (section.name, section.server, cell.tool, cell.protocol, rate, tool.loop(rate), tool.gaps(rate), role)
        return Row(*names, alternation, cell.seconds, started, note=note, **measured)

    try:
        rate = book.half(section.server, cell.protocol) if rate == HALF else rate
        with tempfile.TemporaryDirectory(prefix="infscale-bench-") as folder:
            outcome, used = tool.run(keeper.target(), cell.load(1 + alternation, rate), Path(folder))
    except (RunError, InfscaleError, ValueError, OSError, KeyError) as error:
        print(f"    {cell.tool} {cell.protocol}: {str(error)[:160]!r}", file=sys.stderr)
        book.add(row(str(error)[:500]))
        return False
    measured: dict[str, Any] = {name: getattr(used, name) for name in MEASURED}
    wrong = outcome.errors > MOST_ERRORS * outcome.requests
    book.add(row(f"{outcome.errors} of {outcome.requests} requests failed" if wrong else "", **measured), outcome)
    return not wrong


def run_section(book: Book, section: Section, keeper: Keeper, deadline: float) -> None:
    """Baselines, then the cells in alternation; stops alternating at ``deadline`` (monotonic seconds)."""
    cells = [cell for cell in section.cells if not TOOLS[cell.tool].missing()]
    pairs = [pair for pair in section.pairs() if not TOOLS[pair[0]].missing()]
    for alternation in range(section.baselines):
        for pair in pairs:
            run_cell(book, section, keeper, baseline(*pair), alternation, "baseline")
    for alternation in range(max((cell.repetitions for cell in cells), default=0)):
        if alternation and time.monotonic() > deadline:
            print(f"    out of time after {alternation} alternations: the rest of this section is not run")
            return
        for cell in cells:
            if alternation < cell.repetitions:
                run_cell(book, section, keeper, cell, alternation, cell.role)
        print(f"    alternation {alternation + 1} done", flush=True)


def run_bodies(book: Book, alternations: int) -> None:
    """The large body, by the engine and by ``sendall``; ``delivered_per_s`` is bytes per second here."""
    from infscale.load.null_server import null_server

    data = body.body()
    with null_server() as server:
        for alternation in range(alternations):
            for name, way in body.WAYS.items():
                began, state, started = time.monotonic(), host_state(), datetime.now().isoformat(timespec="seconds")
                names = (
                    "large body",
                    "null",
                    name,
                    "grpc" if name == "ours" else "tcp",
                    MOST,
                    "closed",
                    "closed",
                    "body",
                )
                nan = math.nan
                try:
                    outcome, note = Outcome(body.COUNT, 0, way(server, data), nan, nan, "closed loop"), ""
                except (RuntimeError, OSError) as error:
                    outcome, note = None, str(error)
                wall_s = time.monotonic() - began
                measured: dict[str, Any] = state.since()
                book.add(Row(*names, alternation, wall_s, started, wall_s, **measured, note=note), outcome)


def missing(book: Book) -> None:
    """A row and a line for each peer that is not installed."""
    for name, tool in TOOLS.items():
        if reason := tool.missing():
            print(f"  skipped: {name}: {reason}")
            book.add(Row("", "", name, "", 0, "", "", "missing", 0, 0, "", note=reason))


def show(plan: list[Section]) -> float:
    """Print the time plan; returns its seconds."""
    print("Time plan:")
    for section in plan:
        runs = sum(cell.repetitions for cell in section.cells) + section.baselines * len(section.pairs())
        print(f"  {section.name:>18} on {section.server:<7}{runs:4} runs {section.wall_s() / 60:5.1f} min")
    total = sum(section.wall_s() for section in plan) + 60
    print(f"  with servers and the large body about {total / 60:.0f} min; ended at {BUDGET_S / 60:.0f} min")
    return total


def measure(plan: list[Section], folder: Path, alternations: int) -> None:
    """Run the plan; rows go to results.csv in ``folder``."""
    book, began = Book(folder / "results.csv"), time.monotonic()
    scale = BUDGET_S / show(plan)
    missing(book)
    planned, restarts = 30.0, 0  # seconds for servers' starts
    for section in plan:
        planned += section.wall_s()
        print(f"  {section.name} on {section.server} ({(time.monotonic() - began) / 60:.1f} min so far)", flush=True)
        with Keeper(section.server) as keeper:
            run_section(book, section, keeper, began + planned * min(scale, 1.2))
            restarts += keeper.restarts
    run_bodies(book, alternations)
    minutes = round((time.monotonic() - began) / 60, 1)
    facts = {
        "minutes": minutes,
        "servers that ended by themselves": restarts,
        "date": folder.name,
        "commit": machine.commit(),
    }
    write_facts(folder, facts | msgspec.structs.asdict(machine.describe()))


def write_facts(folder: Path, facts: Mapping[str, object]) -> None:
    """The machine, the commit and the peers' versions, beside the rows."""
    versions = {name: tool.version() for name, tool in TOOLS.items() if not tool.missing()}
    text = json.dumps({**facts, "versions": versions}, indent=1, ensure_ascii=False)
    (folder / "machine.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Measure, or (``--draw FOLDER``) make the table and the figure again from stored rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short alternations, to see that all works")
    parser.add_argument("--plan", action="store_true", help="print the time plan only")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="table and figure of stored results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where folders of results go")
    options = parser.parse_args()
    plan = sections(options.quick)
    if options.plan:
        show(plan)
        return
    folder = options.draw
    if folder is None:
        name = datetime.now().strftime("%Y-%m-%d-%H%M") + ("-quick" if options.quick else "")
        folder = options.out / name
        folder.mkdir(parents=True)
        measure(plan, folder, 2 if options.quick else 10)
    print(table.write(folder))
    draw.write(folder)
    print(f"{folder}/: results.csv, table.md, figure.png")


if __name__ == "__main__":
    main()
