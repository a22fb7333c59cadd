"""What is run, in which order, and how long that takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.peers import BOTH, MOST, TOOLS, Load

BUDGET_S = 25 * 60.0
HALF = -1.0
"""A rate that is only known during the run: half of what our engine delivered at most on that server."""
BASELINE_PER_S = 128.0
"""Of the short runs, for 1 s: few, as each costs more than at a higher rate; two for each of hey's workers."""
RATES = (300.0, 2000.0, 8000.0)
RATE = 2000.0
"""The rate of the headline ratios, with the most alternations."""


@dataclass(frozen=True)
class Cell:
    """One client at one load.

    ``role`` is "load", "timestamps" (perf_analyzer's rate delivered) or "memory" (short and long runs).
    """

    tool: str
    protocol: str
    rate_per_s: float
    seconds: float
    repetitions: int
    role: str = "load"

    def wall_s(self) -> float:
        """Expected seconds of one run."""
        tool, seconds = TOOLS[self.tool], self.seconds
        if self.tool == "ours" and not self.rate_per_s:
            seconds = 3.0  # the overload is a count of requests
        return seconds + tool.start_s + 4 * (self.role == "timestamps")

    def load(self, seed: int, rate_per_s: float | None = None) -> Load:
        """The load of one run; ``rate_per_s`` in place of :data:`HALF`."""
        rate = self.rate_per_s if rate_per_s is None else rate_per_s
        return Load(self.protocol, rate, self.seconds, seed, self.role == "timestamps")


@dataclass(frozen=True)
class Section:
    """Cells on one server, which alternate A B C A B C; ``baselines`` rounds of short runs come first."""

    name: str
    server: str
    cells: Sequence[Cell]
    baselines: int = 0

    def pairs(self) -> list[tuple[str, str]]:
        """Tools and protocols, each once."""
        return list(dict.fromkeys((cell.tool, cell.protocol) for cell in self.cells))

    def wall_s(self) -> float:
        """Expected seconds."""
        return sum(c.repetitions * c.wall_s() for c in self.cells) + self.baselines * sum(
            baseline(*pair).wall_s() for pair in self.pairs()
        )


def baseline(tool: str, protocol: str) -> Cell:
    """The short run that start-up is taken from."""
    return Cell(tool, protocol, BASELINE_PER_S if TOOLS[tool].paced else MOST, 1, 1)


def _everyone(rate: float, seconds: float, repetitions: int, headline: int) -> list[Cell]:
    """Every client that can be given the rate; those of the headline ratios ``headline`` times."""
    often = (
        {("ours", p) for p in BOTH} | {("perf_analyzer", p) for p in BOTH} | {("locust", "rest"), ("loadgen", "rest")}
    )
    cells = [
        Cell(name, p, rate, seconds, headline if (name, p) in often else repetitions)
        for name, tool in TOOLS.items()
        for p in tool.protocols
        if "triton" in tool.servers and (tool.paced or not rate)
    ]
    cells.sort(key=lambda cell: BOTH.index(cell.protocol))  # those that are compared stand side by side
    stamped = (0.4, repetitions) if rate == MOST else (seconds, 1)  # writing them takes longer than the load
    return cells + [Cell("perf_analyzer", p, rate, *stamped, "timestamps") for p in BOTH]


def sections(quick: bool) -> list[Section]:
    """The whole plan; ``quick`` is a few alternations of short runs, to see that all works."""
    many, few = (2, 1) if quick else (10, 3)
    second = 1.0 if quick else 2.0
    base = 1 if quick else 5
    null = [Cell("ours", "rest", MOST, second, many), Cell("wrk", "rest", MOST, second, many)]
    null += [Cell("ours", "grpc", MOST, second, many), Cell("h2load", "grpc", MOST, second, many)]
    null += [Cell(tool, "rest", MOST, second, few) for tool in ("h2load", "hey")]
    memory = [Cell("ours", p, 8000, s, few, "memory") for p in BOTH for s in (0.25, second * 2.5)]
    half = [Cell("ours", p, HALF, second, few) for p in BOTH]
    return [
        Section("2,000/s", "triton", _everyone(RATE, second * 2.5, few, many), base),
        Section("300/s", "triton", _everyone(300, second * 2, few, few)),
        Section("8,000/s", "triton", _everyone(8000, second * 1.5, few, few)),
        Section("most", "triton", _everyone(MOST, second, few, few)),
        Section("half of the most", "triton", half),
        Section("most", "null", null, 1 if quick else 3),
        Section("half of the most", "null", half),
        Section("memory", "null", memory),
    ]
