"""The finding on load tools: if these fail, a reader is told that tools agree where they do not, or why they differ."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tables import searched
from infscale.analysis.tables import Tables
from infscale.analysis.tables.trials import factors
from infscale.experiment.beside import tools
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import CAPACITY, P95, SATURATION, TOOLS
from infscale.findings import FINDINGS, load_tools
from infscale.findings.finding import Finding
from infscale.records.gate import VALID
from infscale.records.manifest import KnownLoad, Reported, Tool
from infscale.records.runs import Run
from infscale.report import results
from infscale.report.wording import saturation_range

FINDING = FINDINGS[TOOLS]


def known(late: int, p99_ms: float, corrected: float = 0.0, reported: float = 0.0, per_s: float = 900.0) -> KnownLoad:
    return KnownLoad(
        rate_per_s=200.0,
        stall_ms=300.0,
        rows=800,
        late=late,
        answered_per_s=per_s,
        cpu_us=50.0,
        response={"p99_ms": p99_ms},
        roundtrip={"p99_ms": 1.0},
        corrected={"p99_ms": corrected} if corrected else {},
        reported=Reported(tool="a tool", p99_ms=reported) if reported else None,
    )


LOADS = {
    "wire": Tool(stall=known(60, 260.0), limit=known(0, 700.0, per_s=9000.0)),
    "locust": Tool(stall=known(8, 5.0, 250.0, 6.0), limit=known(0, 2.0, reported=3.0)),
    "locust-poisson": Tool(stall=known(7, 4.0, 240.0, 5.0), limit=known(0, 2.0, reported=3.0)),
    "loadgen-server": Tool(stall=known(59, 261.0, reported=262.0), limit=known(0, 500.0, reported=501.0)),
}


def made(profile: str = "quick", left_out: Sequence[int] = ()) -> tuple[Run, Tables]:
    """A run whose tools report the p50, p95 and p99 of the rows, and twice that in Locust's case."""
    run, tables = searched(FINDING.design(profile), p95_ms=lambda arm: 4.0, left_out=left_out)
    arms = run.manifest.design.arms
    run.manifest.tools = {arm: LOADS[arms[arm].client] for arm in run.measured}
    trials = tables.trials.copy()
    times = np.where(trials["client"].str.startswith("locust"), 2.0, 1.0)
    for name in load_tools.QUANTITIES:
        own = trials["finished_per_s"] if name == "throughput_per_s" else trials[f"response_{name}"]
        trials[f"reported_{name}"] = np.where(trials["client"] == "wire", np.nan, times * own)
    return run, dataclasses.replace(tables, trials=trials)


def test_every_tool_is_compared_with_the_engine_on_one_server_at_one_rate() -> None:
    """An arm with another payload, or another server, would be a difference of that."""
    design = FINDING.design("quick")
    assert [(arm.protocol, arm.client) for arm in design.arms] == [
        (protocol, client) for protocol in ("rest", "grpc") for client in load_tools.COMPARED
    ]
    assert {arm.deployment for arm in design.arms} == {design.arms[0].deployment}
    assert len({(arm.batch, arm.encoding) for arm in design.arms}) == 1
    pairs = {(design.arms[one.arm].client, design.arms[one.reference].client) for one in design.contrasts}
    assert pairs == {(client, "wire") for client in load_tools.COMPARED if client != "wire"}
    saturation = {design.arms[one.arm].client for one in design.contrasts if one.metric == SATURATION}
    assert saturation == {"loadgen-server"}, "a closed loop has no saturation rate"
    assert {one.arm for one in design.contrasts if one.metric == P95} == {1, 2, 3, 5, 6, 7}
    assert {one.arm for one in design.contrasts if one.metric == CAPACITY} == {3, 7}, "nor a rate at an SLO"
    assert design.slo == load_tools.SLO
    assert design.beside == ("tools",)


def test_what_a_tool_reports_stands_beside_what_its_rows_say() -> None:
    run, tables = made()
    rest, rows, grpc = load_tools.answer(run, tables)[:3]
    assert rest.startswith(
        "The system triton, REST at a nominal 400 requests/s, medians over lifetimes of p50, p95 and"
    )
    assert grpc.startswith("The system triton, gRPC at a nominal 400 requests/s")
    assert ": the load engine reports 2.00, 4.00 and " in rest
    assert "; Locust with evenly paced users reports 4.00, 8.00 and " in rest
    assert "ms at 800 requests/s" in rest
    assert "LoadGen's Server scenario reports 2.00, 4.00 and " in rest
    assert rows.startswith("The system triton, REST, the same from the rows of the tools' requests: Locust with evenly")
    assert "Locust with evenly paced users 2.00, 4.00 and " in rows
    assert "the load engine" not in rows
    cpu = next(one for one in load_tools.answer(run, tables) if "the client's CPU" in one)
    assert "µs a request, with 95 % intervals: the load engine 50.0 [" in cpu


def test_the_rate_at_the_slo_stands_beside_what_loadgen_says_of_it() -> None:
    """It is LoadGen's Server metric: of its own verdicts a reader must see how often they are those of the rows."""
    run, tables = made()
    trials = tables.trials.assign(reported_verdict="", reported_unmet="")
    own = (trials["client"] == "loadgen-server") & (trials["phase"] == "capacity")
    trials.loc[own, "reported_verdict"] = np.where(trials.loc[own, "verdict"] == VALID, "VALID", "INVALID")
    first = trials[own & (trials["verdict"] == VALID)].index[0]
    trials.loc[first, ["reported_verdict", "reported_unmet"]] = "INVALID", "early_stopping"
    sentences = load_tools.answer(run, dataclasses.replace(tables, trials=trials))
    rest = next(one for one in sentences if "the highest λ at which p99<20ms is kept" in one)
    assert "REST: the highest λ" in rest
    assert "the load engine: 79" in rest
    assert "LoadGen's Server scenario: 79" in rest
    assert "says VALID of 3 of the 4 trials whose rows keep it, and of 0 of the 4 whose rows do not; 1 of those" in rest
    assert "Locust" not in rest
    assert any("its rate at p99<20ms is 79" in one for one in sentences)


def test_of_a_run_without_an_slo_no_rate_at_one_is_told() -> None:
    run, tables = searched(msgspec.structs.replace(FINDING.design("quick"), slo=None, contrasts=()))
    assert not [one for one in load_tools.answer(run, tables) if "p99<" in one or "LoadGen itself" in one]


def test_why_they_differ_is_said_with_the_numbers_of_known_servers() -> None:
    sentences = load_tools.answer(*made())
    stall = next(one for one in sentences if one.startswith("REST, a null server that stalls once for 300 ms"))
    assert "the load engine has 60 of 800 answers later than 10 ms, and a p99 of 260 ms by its rows; " in stall
    assert (
        "has 8 of 800 answers later than 10 ms, and a p99 of 5.00 ms by its rows, 6.00 ms as it reports, 250 ms"
        in stall
    )
    brief = load_tools.lead(*made())[0]
    assert (
        "later than 10 ms are 60 of 800 with the load engine, 8 of 800 with Locust with evenly paced users, " in brief
    )
    assert "; the p99 that they give is 260, 6.00, 5.00, 262 ms. While a user waits" in brief
    limit = next(one for one in sentences if one.startswith("gRPC, the null server and a nominal 200 requests/s"))
    assert "the load engine gets 9,000 requests/s answered at 50.0 µs of CPU a request, with a p99 of 700 ms" in limit
    assert "700 ms from the schedule, 1.00 ms from the send" in limit
    assert "2.00 ms from when a user was ready, 1.00 ms from the send, 3.00 ms as it reports" in limit


def test_what_loadgen_would_not_print_is_no_number_of_it() -> None:
    """Of fewer queries than its bound needs it has no p99: the tables leave it out, of its rows too."""
    run, tables = made()
    trials = tables.trials.copy()
    trials.loc[trials["client"] == "loadgen-server", ["reported_p99_ms", "response_p99_ms"]] = np.nan
    reported, rows = load_tools.answer(run, dataclasses.replace(tables, trials=trials))[:2]
    assert "LoadGen's Server scenario reports 2.00, 4.00 and n/a ms at 400 requests/s" in reported
    assert "LoadGen's Server scenario 2.00, 4.00 and n/a ms at 400 requests/s" in rows


def test_a_tool_that_is_not_installed_costs_only_its_own_part() -> None:
    run, tables = made(left_out=[3, 7])
    text = " ".join(load_tools.answer(run, tables))
    assert "LoadGen" not in text
    assert "Locust with its Poisson wait" in text


def test_without_a_valid_trial_nothing_is_concluded() -> None:
    run, tables = made()
    void = tables.trials.assign(verdict="INVALID")
    sentence = load_tools.answer(run, dataclasses.replace(tables, trials=void))[0]
    assert sentence.endswith("cannot conclude what the tools say, because no trial is VALID.")


def test_pictures_hold_what_the_sentences_say() -> None:
    run, tables = made()
    said, seen = load_tools.reported_numbers(run, tables), load_tools.known_numbers(run, tables)
    assert len(said) == 8 * 3 * 2
    locust = said[said["arm"] == 1].set_index(["panel", "kind"])["value"]
    assert locust["p95 (ms)", "reported"] == pytest.approx(2 * locust["p95 (ms)", "rows"])
    late = seen[seen["panel"] == "met the stall (requests)"].set_index("arm")["value"]
    assert late.to_dict() == {0: 60, 1: 8, 2: 7, 3: 59, 4: 60, 5: 8, 6: 7, 7: 59}
    for picture, numbers in ((load_tools.SAID, said), (load_tools.KNOWN, seen)):
        assert len(picture.draw(numbers).axes) == 3
        assert picture.caption(run, tables)
    run.manifest.tools = {}
    assert load_tools.known_numbers(run, tables).empty, "of a run that has not come so far"
    assert not [one for one in load_tools.answer(run, tables) if "null server" in one]


# --- closed loops elsewhere ---------------------------------------------------------------------------

BOTH = Finding(
    "own",
    "Which?",
    blocks=[[Arm(p, framework="triton", client=client) for p in ("rest", "grpc")] for client in ("wire", "locust")],
)


def test_open_and_closed_loops_share_no_axis(tmp_path: Path) -> None:
    """A closed loop asks a slow server less: beside an open one it looks better than it is."""
    run, tables = searched(BOTH.design("quick"))
    result = results.save(BOTH, run, tables, tmp_path)
    assert [figure.file for figure in result.figures] == ["finding-own.png", "finding-own-closed.png"]
    for name, closed in (("finding-own", False), ("finding-own-closed", True)):
        drawn = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert len(drawn) == 3
        assert all(("locust" in line) == closed for line in drawn[1:])
    assert "closed loops, whose λ is nominal" in result.figures[1].caption
    (only,) = results.loops_apart(BOTH, tables.of_loop(closed=True))
    assert [picture.name for picture in only[0]] == [""]
    (together,) = results.loops_apart(FINDING, made()[1])
    assert together[0] == list(FINDING.pictures)


def test_a_closed_loop_is_marked_in_every_table_and_has_no_saturation_rate() -> None:
    run, tables = searched(BOTH.design("quick"))
    for name, table in tables.by_name().items():
        assert "closed" in table.columns, name
    own = tables.arms.sort_values("arm")
    assert own["closed"].tolist() == [False, False, True, True]
    assert own["saturation_per_s"].isna().tolist() == [False, False, True, True]
    assert saturation_range(own.iloc[2]) == "not defined for a closed loop"
    assert set(tables.queues["arm"]) <= {0, 1}, "whose arrivals are Poisson"
    assert factors(msgspec.structs.replace(run.manifest.design.arms[0], client="locust"))["closed"] is True


# --- known servers ------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 400))
def test_what_a_paced_user_omitted_is_added_by_the_rule_of_hdrhistogram(interval: int, response: int) -> None:
    times = np.array([response], np.int64)
    expected = [response, *range(response - interval, 0, -interval)] if response > interval else [response]
    assert tools.with_omitted(times, interval).tolist() == expected


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_stall_is_met_by_all_that_an_open_loop_sends_and_by_one_request_of_each_user(protocol: str) -> None:
    """It is the difference that the finding shows."""
    engine, loadgen = (
        tools.load(Arm(protocol, client=client), 100.0, 2.0, seed=1, stall_ms=600.0)
        for client in ("wire", "loadgen-server")
    )
    closed = tools.load(Arm(protocol, client="locust", connections=4), 100.0, 2.0, seed=1, stall_ms=600.0)
    for one in (engine, loadgen):
        assert one.late > 30
        assert one.corrected == {}
        assert closed.rows < one.rows
    assert closed.late >= 1
    assert closed.response
    assert closed.roundtrip
    assert closed.corrected["p95_ms"] >= closed.response["p95_ms"]
    assert engine.reported is None
    for said, tool in ((closed.reported, "Locust"), (loadgen.reported, "MLPerf LoadGen")):
        assert said is not None
        assert said.tool.startswith(tool)
        assert said.p99_ms is not None
        assert said.files == [], "its logs are not kept"
