"""If these fail, the side-by-side benchmark reports numbers that its clients did not print, or ratios that mislead."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.project import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import bench, draw, plan, table
from benchmarks.bench import Book, Row
from benchmarks.peers import parse, peers
from benchmarks.peers.parse import Outcome

WRK = """\
Running 1s test @ http://127.0.0.1:52063/v2/models/mlp/infer
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.26ms    1.34ms   7.68ms   55.43%
    Req/Sec    28.31k     2.99k   34.40k    70.00%
  Latency Distribution
     50%    2.50ms
     75%    3.13ms
     90%    3.97ms
     99%    4.89ms
  28104 requests in 1.00s, 7.85MB read
Requests/sec:  28046.81
Transfer/sec:      7.84MB
"""
H2LOAD = """\
finished in 1.00s, 298.00 req/s, 30.89KB/s
requests: 298 total, 298 started, 298 done, 298 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 298 2xx, 0 3xx, 0 4xx, 0 5xx
                     min         max         mean         sd        +/- sd
time for request:      349us      1.04ms       607us        84us    73.83%
"""
H2LOAD_LOG = "1795479863533688\t200\t2968\n1795479863533707\t200\t3000\n1795479863533719\t200\t2993\n"
HEY = """\
Summary:
  Total:	1.0805 secs
  Requests/sec:	296.1539

Response time histogram:
  0.000 [1]	|■
  0.002 [19]	|■■■■■■■■■■■■

Latency distribution:
  50% in 0.0073 secs
  95% in 0.0120 secs
  99% in 0.0139 secs

Status code distribution:
  [200]	320 responses
"""
PERF_ANALYZER = """\
  Sending 300 benchmark requests
Request Rate: 300 inference requests per seconds
  Client:
    Request count: 300
    Throughput: 149.958 infer/sec
    Avg latency: 311 usec (standard deviation 133 usec)
    p50 latency: 266 usec
    p99 latency: 703 usec
  Server:
    Cache hit count: 300
    Successful request count: 300
"""
LOCUST = """\
[
    {
        "name": "/v2/models/mlp/infer",
        "last_request_timestamp": 1795479853.9270651,
        "start_time": 1795479853.2211561,
        "num_requests": 225,
        "num_failures": 0,
        "response_times": {"5": 5, "2": 44, "1": 145, "4": 5, "3": 3, "0": 23}
    }
]
client_cpu_s 0.194321
"""
LOADGEN = """\
SUT name : PySUT
Scenario : Server
Completed samples per second    : 342.00
Result is : INVALID
Scheduled samples per second : 342.28
50.00 percentile latency (ns)   : 710577
99.00 percentile latency (ns)   : 3614973
99.90 percentile latency (ns)   : 8828531
"""


def test_wrk() -> None:
    assert parse.wrk(WRK) == Outcome(28104, 0, 28046.81, 2.50, 4.89, parse.CLOSED)


def test_wrk_counts_what_was_refused() -> None:
    """A server that refuses fast would look like the fastest one."""
    outcome = parse.wrk(WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 14052\nRequests/sec"))
    assert outcome.errors == 14052
    assert outcome.delivered_per_s == pytest.approx(28046.81 / 2)


def test_h2load() -> None:
    outcome = parse.h2load(H2LOAD, H2LOAD_LOG)
    assert (outcome.requests, outcome.errors, outcome.delivered_per_s) == (298, 0, 298.0)
    assert outcome.p50_ms == 2.993
    assert math.isnan(parse.h2load(H2LOAD).p50_ms)


def test_hey() -> None:
    outcome = parse.hey(HEY)
    assert (outcome.requests, outcome.errors) == (320, 0)
    assert (outcome.p50_ms, outcome.p99_ms) == pytest.approx((7.3, 13.9))
    assert parse.hey(HEY.replace("[200]\t320", "[200]\t300 responses\n  [503]\t20")).errors == 20


def test_perf_analyzer_rate_comes_from_timestamps() -> None:
    """Its own throughput (150/s here) divides by a window twice as long as its load of 300/s was."""
    requests = [{"timestamp": i * 10**9, "response_timestamps": [i * 10**9 + 5 * 10**8]} for i in range(4)]
    export = json.dumps({"experiments": [{"requests": requests}]})
    outcome = parse.perf_analyzer(PERF_ANALYZER, export=export)
    assert (outcome.requests, outcome.p50_ms, outcome.p99_ms, outcome.clock) == (300, 0.266, 0.703, parse.SENT)
    assert outcome.delivered_per_s == pytest.approx(4 / 3.5)
    assert math.isnan(parse.perf_analyzer(PERF_ANALYZER).delivered_per_s)


def test_locust() -> None:
    outcome = parse.locust(LOCUST, parse.SENT)
    assert (outcome.requests, outcome.errors, outcome.p50_ms, outcome.p99_ms) == (225, 0, 1.0, 5.0)
    assert outcome.client_cpu_s == 0.194321
    assert outcome.delivered_per_s == pytest.approx(225 / 0.705909, rel=1e-4)


def test_loadgen() -> None:
    outcome = parse.loadgen("issued 300\nerrors 30\nclient_cpu_s 0.118708\n", LOADGEN)
    assert (outcome.requests, outcome.errors, outcome.clock) == (300, 30, parse.SCHEDULED)
    assert (outcome.p50_ms, outcome.p99_ms) == (0.710577, 3.614973)
    assert outcome.delivered_per_s == pytest.approx(342.00 * 0.9)


@pytest.mark.parametrize("read", [parse.wrk, parse.h2load, parse.hey, parse.perf_analyzer])
def test_other_output_is_an_error_and_no_number(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match="no match"):
        read("connection refused")


def row(tool: str, alternation: int, cpu_s: float, requests: int, role: str = "load") -> dict[str, object]:
    names = ("2,000/s", "triton", tool, "rest", 2000.0, "open", "poisson", role)
    made = Row(*names, alternation, 5, "now", 6.0, cpu_s, 0.0, 0.1, 0.0)
    return vars(made) | vars(Outcome(requests, 0, 2000.0, 0.2, 1.0 + alternation, parse.SENT))


def rows() -> pd.DataFrame:
    """Ours at 50 µs and a peer at 100 µs × (0.9, 1, 1.1) per request, with start-ups of 1 s and 0.1 s."""
    made = [row("ours", 0, 1.0 + 300 * 50e-6, 300, "baseline"), row("perf_analyzer", 0, 0.1 + 300e-4, 300, "baseline")]
    for i, factor in enumerate((0.9, 1.0, 1.1)):
        made.append(row("ours", i, 1.0 + 10_000 * 50e-6, 10_000))
        made.append(row("perf_analyzer", i, 0.1 + 300e-4 + 9_700 * factor * 1e-4, 10_000))
    return table.with_cpu(pd.DataFrame(made))


def test_start_up_is_taken_out_of_the_cpu_per_request() -> None:
    """Importing pandas costs more than ten thousand requests: left in, it would be the whole result."""
    found = rows().dropna(subset=["cpu_us"]).groupby("tool")["cpu_us"].agg(list)
    assert found["ours"] == pytest.approx([50, 50, 50])
    assert found["perf_analyzer"] == pytest.approx([90, 100, 110])


def test_ratios_are_paired_by_alternation() -> None:
    ratio = table.ratios(rows()).set_index("metric").loc["cpu_us"]
    logs = np.log([50 / 90, 50 / 100, 50 / 110])
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)  # t at 97.5 %, two degrees of freedom
    assert ratio["ratio"] == pytest.approx(math.exp(logs.mean()))
    assert (ratio["low"], ratio["high"]) == pytest.approx((math.exp(logs.mean() - half), math.exp(logs.mean() + half)))
    assert ratio["pairs"] == 3


def test_times_of_an_open_and_a_closed_loop_are_never_a_ratio() -> None:
    data = rows()
    data.loc[data["tool"] == "perf_analyzer", "loop"] = "closed"
    assert "p99_ms" not in set(table.ratios(data)["metric"])


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.4, 0.3, 0.45, "reached"),
        (0.4, 0.3, 0.6, "cannot conclude"),
        (0.7, 0.6, 0.8, "not reached"),
        (0.4, math.nan, math.nan, "reached"),
        (math.nan, math.nan, math.nan, "not measured"),
    ],
)
def test_a_goal_inside_the_interval_is_not_called_reached(value: float, low: float, high: float, said: str) -> None:
    assert table.Goal("", 0.5).verdict(value, low, high) == said


def test_the_whole_plan_fits_its_budget() -> None:
    parts = plan.sections(quick=False)
    assert sum(part.wall_s() for part in parts) + 60 <= plan.BUDGET_S
    headline = next(part for part in parts if part.name == "2,000/s")
    asked = {(c.tool, c.protocol) for c in headline.cells if c.repetitions >= 10}
    assert asked >= {("ours", "rest"), ("ours", "grpc"), ("perf_analyzer", "rest"), ("perf_analyzer", "grpc")}


@pytest.mark.server
def test_a_real_run_gives_a_table_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours against the null server, a client that is not installed, and one that fails."""
    gone = peers.Tool(peers.wrk, ("rest",), "apt-get install gone", programs=("no-such-program",))
    bad = peers.Tool(lambda *_: (parse.wrk("nonsense"), NotImplemented), ("rest",), "")
    monkeypatch.setattr(peers, "TOOLS", {"ours": peers.TOOLS["ours"], "wrk": gone, "hey": bad})
    for module in (bench, plan):
        monkeypatch.setattr(module, "TOOLS", peers.TOOLS)
    monkeypatch.setattr(bench, "run_bodies", lambda *_: None)
    cells = [plan.Cell("ours", "rest", 300, 0.2, 1), plan.Cell("hey", "rest", 300, 1, 1)]
    bench.measure([plan.Section("300/s", "null", cells, 1)], tmp_path, 1)
    text = table.write(tmp_path)
    draw.write(tmp_path)
    assert "not measured" in text
    page = (tmp_path / "table.md").read_text()
    assert "no-such-program not found; apt-get install gone" in page
    assert "no match" in page
    ours = table.read(tmp_path).query("tool == 'ours' and role == 'load'").iloc[0]
    assert ours["errors"] == 0
    assert ours["requests"] > 0
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_rows_are_kept_when_a_run_is_ended(tmp_path: Path) -> None:
    """Each row is in the file as soon as it is known."""
    book = Book(tmp_path / "results.csv")
    book.add(Row("s", "null", "wrk", "rest", 0, "closed", "none", "missing", 0, 0, "", note="gone"))
    assert pd.read_csv(tmp_path / "results.csv")["note"].tolist() == ["gone"]


MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "benchmarks").rglob("*.py")
    if not {".peers", "results"} & set(path.parts) and path.stem not in ("locust_client", "loadgen_client", "__init__")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_started(name: str) -> None:
    """Else a name that has moved is found out when the benchmark is needed. (Foreign clients import their own.)"""
    importlib.import_module(name)
