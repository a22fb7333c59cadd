"""If these fail, a run of another load tool is read wrongly, or called VALID by more than its file shows."""

import gzip
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import k6_lines
from infscale import cli
from infscale.analysis.tables import tabulate
from infscale.cli import schemas
from infscale.errors import ConfigError, DataError
from infscale.experiment.check import check
from infscale.experiment.design.arm import IMPORTED, Arm
from infscale.experiment.design.design import Design
from infscale.records.gate import INVALID
from infscale.records.gates.imported import OF_CLIENT
from infscale.records.imported import guidellm, k6
from infscale.records.imported.run import store
from infscale.records.imported.source import Load
from infscale.records.runs import Run, load_run
from infscale.report import listing

FIXTURES = Path(__file__).parent / "imported"
Report = dict[str, Any]


def report(name: str) -> Report:
    """A report that guidellm wrote; see README.md beside it."""
    found: Report = json.loads(gzip.decompress((FIXTURES / f"{name}.json.gz").read_bytes()))
    return found


def of_report(text: Report) -> Load:
    (load,) = guidellm.of_text(json.dumps(text).encode(), "report.json")
    return load


def of_k6(text: bytes) -> Load:
    return k6.of_lines(text.splitlines(keepends=True), "points.json")


def imported(tmp_path: Path, tool: str, *sides: list[bytes]) -> Run:
    """The run of files with these contents, of one side or two."""
    tmp_path.mkdir(exist_ok=True)
    files = []
    for place, side in enumerate(sides):
        files.append([tmp_path / f"{place}-{k}.json" for k in range(len(side))])
        for file, text in zip(files[-1], side, strict=True):
            file.write_bytes(text)
    return load_run(store(tool, files, tmp_path / "runs"))


def verdict_of(run: Run) -> Any:
    (trial,) = run.trials
    return trial.manifest.judged


# ------------------------------------------------------------------------------------------------- guidellm


def test_a_report_of_guidellm_gives_the_times_that_it_says_itself() -> None:
    """Its own latency runs from the send, so that our round-trip times must be its."""
    one = report("poisson")["benchmarks"][0]
    (load,) = guidellm.read(FIXTURES / "poisson.json.gz")
    rows = load.rows
    assert len(rows) == one["metrics"]["request_totals"]["successful"] == 150
    assert (load.client, load.rate_per_s, load.connections) == ("guidellm", 20.0, 0)
    roundtrip_s = (rows["done_ns"] - rows["sent_ns"]) / 1e9
    own = one["metrics"]["request_latency"]["successful"]
    assert roundtrip_s.mean() == pytest.approx(own["mean"], rel=1e-5)
    assert roundtrip_s.quantile(0.95) == pytest.approx(own["percentiles"]["p95"], rel=0.02)
    assert load.reported.p95_ms == pytest.approx(1e3 * own["percentiles"]["p95"])
    assert (rows["first_byte_ns"].between(rows["sent_ns"], rows["done_ns"])).all(), "the first token"
    targeted = sorted(r["info"]["timings"]["targeted_start"] for r in one["requests"]["successful"])
    assert np.diff(rows["scheduled_ns"]) / 1e9 == pytest.approx(np.diff(targeted), abs=1e-6)


def test_a_schedule_of_guidellm_is_judged_by_its_lag_and_its_arrivals(tmp_path: Path) -> None:
    """A generator that is late makes every tool's numbers wrong; only we say so."""
    text = report("poisson")
    verdict = verdict_of(imported(tmp_path, "guidellm", [json.dumps(text).encode()]))
    judged = {gate.name for gate in verdict.gates if not gate.text.startswith("not judged")}
    assert {"lag", "delivered", "arrivals", "clock", "in_flight", "response", "errors", "steady"} <= judged
    for request in text["benchmarks"][0]["requests"]["successful"]:
        for name in request["info"]["timings"]:
            request["info"]["timings"][name] += 0.0 if name == "targeted_start" else 0.5
    late = verdict_of(imported(tmp_path / "late", "guidellm", [json.dumps(text).encode()]))
    assert (late.name, "lag" in late.reasons) == (INVALID, True)


def test_users_of_guidellm_are_a_closed_loop(tmp_path: Path) -> None:
    run = imported(tmp_path, "guidellm", [(gzip.decompress((FIXTURES / "concurrent.json.gz").read_bytes()))])
    (trial,) = run.trials
    assert (trial.manifest.arm.client, trial.manifest.arm.connections) == ("guidellm-users", 4)
    assert trial.manifest.arm.closed
    rows = trial.samples()
    assert set(rows["status"]) == {"ok", "http_500"}, "the server of the fixture failed from its 191st request on"
    assert (rows["scheduled_ns"] == rows["due_ns"]).all()
    assert trial.manifest.generator.reasons[0].status == "http_500"
    unjudged = {gate.name for gate in trial.manifest.judged.gates if gate.text.startswith("not judged")}
    assert unjudged == set(OF_CLIENT["guidellm-users"])


def test_what_was_in_flight_at_the_end_does_not_make_the_server_look_fast() -> None:
    """To leave out only the requests that were cut would leave out the slow ones."""
    text = report("poisson")
    requests = text["benchmarks"][0]["requests"]
    ordered = sorted(requests["successful"], key=lambda one: one["info"]["timings"]["targeted_start"])
    cut = ordered[100]
    cut["info"]["timings"] |= {"request_end": None, "resolve_end": cut["info"]["timings"]["resolve_start"] + 1e-4}
    requests["successful"], requests["incomplete"] = [one for one in ordered if one is not cut], [cut]
    text["benchmarks"][0]["metrics"]["request_totals"] |= {"successful": 149, "incomplete": 1}
    load = of_report(text)
    assert (len(load.rows), load.reported.left_out) == (100, 50), "all from the one that was cut"
    cut["info"]["timings"]["resolve_end"] += 3600
    load = of_report(text)
    assert (len(load.rows), load.reported.left_out) == (150, 0), (
        "one that waited for longer than all others is known to be slow"
    )
    assert list(load.rows["status"]).count("timeout") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["metadata"].update(version=1),
            "is a report of version 1; accepted: guidellm",
        ),
        (lambda r: r.pop("metadata"), "has no version"),
        (lambda r: r.update(benchmarks=[]), "holds no benchmark"),
        (
            lambda r: r["benchmarks"][0]["requests"]["successful"].pop(),
            "has 149 of 150 successful requests; accepted: all",
        ),
        (
            lambda r: r["benchmarks"][0]["config"]["strategy"].update(type_="replay"),
            "its strategy is 'replay'",
        ),
        (lambda r: r["benchmarks"][0]["config"]["strategy"].update(rate=0), "its rate is 0"),
        (
            lambda r: r["benchmarks"][0]["requests"]["successful"][3]["info"]["timings"].update(request_end=9e99),
            "time is not between",
        ),
        (
            # As in a report that guidellm 0.8.1 wrote on a busy machine: 30 of 150 requests had such a time.
            lambda r: r["benchmarks"][0]["requests"]["successful"][3]["info"]["timings"].update(targeted_start=-0.949),
            "scheduled -0.949 s after 1970: guidellm 0.8 loses the start of a poisson schedule",
        ),
        (
            lambda r: r["benchmarks"][0]["requests"]["successful"][3]["info"]["timings"].update(targeted_start=None),
            "lacks the times of its start and end",
        ),
    ],
)
def test_a_report_that_cannot_be_judged_is_refused_with_the_reason(
    change: Callable[[Report], object], message: str
) -> None:
    text = report("poisson")
    change(text)
    with pytest.raises(DataError, match=message):
        of_report(text)


# ------------------------------------------------------------------------------------------------------- k6


def test_a_request_of_k6_is_put_together_from_its_points() -> None:
    load = of_k6(k6_lines.lines(failures={100: "http_500", 150: "refused", 200: "timeout"}))
    rows = load.rows
    assert len(rows) == 240
    expected = sorted(k6_lines.requests(8, 30, 20.0, 1), key=lambda one: one[0])
    ordered = rows.sort_values("done_ns")
    assert np.diff(ordered["done_ns"]).tolist() == np.diff([end for end, _ in expected]).tolist(), "to the nanosecond"
    whole = [sum(parts.values()) for _, parts in expected]
    assert ((ordered["done_ns"] - ordered["scheduled_ns"]) / 1e6).tolist() == pytest.approx(whole, abs=1e-5)
    assert ((ordered["sent_ns"] - ordered["due_ns"]) / 1e6).tolist() == pytest.approx(
        [parts["blocked"] for _, parts in expected], abs=1e-5
    )
    assert rows["status"].value_counts().to_dict() == {"ok": 237, "http_500": 1, "refused": 1, "timeout": 1}
    assert {reason.text for reason in load.reasons} == {
        "error code 1500",
        "dial: connection refused",
        "request timeout",
    }


def test_requests_that_end_in_one_nanosecond_are_told_apart() -> None:
    tags = {"expected_response": "true", "status": "200"}
    text = b"".join(
        json.dumps(k6_lines._point(f"http_req_{name}", 10**9, value, tags)).encode() + b"\n"
        for duration in (3.0, 5.0)
        for name, value in (("duration", duration), ("blocked", duration / 10), ("sending", 0.1), ("waiting", 1.0))
    )
    rows = of_k6(text).rows
    assert sorted((rows["done_ns"] - rows["sent_ns"]).tolist()) == [3_000_000, 5_000_000]
    assert sorted((rows["sent_ns"] - rows["due_ns"]).tolist()) == [300_000, 500_000]


def test_a_run_of_k6_claims_no_more_than_its_file_shows(tmp_path: Path) -> None:
    """VALID by four gates is not VALID by fifteen."""
    verdict = verdict_of(imported(tmp_path, "k6", [k6_lines.lines()]))
    unjudged = {gate.name for gate in verdict.gates if gate.text.startswith("not judged")}
    assert unjudged == set(OF_CLIENT["k6"])
    assert all(gate.value is None for gate in verdict.gates if gate.name in unjudged)
    assert "11 gates cannot be judged from k6's file (own_limits, engine_cpu," in verdict.text
    assert verdict.short == "VALID, imported"


def test_iterations_that_k6_dropped_make_its_run_invalid(tmp_path: Path) -> None:
    """k6 sent less than was asked for, and its latencies do not show it."""
    verdict = verdict_of(imported(tmp_path, "k6", [k6_lines.lines(dropped=5)]))
    assert (verdict.name, verdict.reasons, verdict.errors) == (INVALID, ("delivered",), {"unsent": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no point of http_req_duration, holds no request"),
        (b"{}\n", "line 1 is no line of k6's JSON output"),
        (b'{"type":"Point","metric":"vus"}\n[\n', "line 2 is no line of k6"),
        (b'{"type":"Point","metric":"http_req_duration","data":{"time":"now","value":1}}', "'now' is no time"),
        (
            b'{"type":"Point","metric":"http_req_duration","data":{"time":"2026-13-01T00:00:00Z","value":1}}',
            "is no time",
        ),
        (
            b'{"type":"Point","metric":"http_req_duration","data":{"time":"2026-01-01T00:00:00Z","value":-1}}',
            "http_req_duration is -1",
        ),
        (
            b'{"type":"Point","metric":"dropped_iterations","data":{"time":"2026-01-01T00:00:00Z","value":1e9}}',
            "more than 10,000,000 dropped iterations",
        ),
    ],
)
def test_lines_that_are_none_of_k6s_are_named_by_their_number(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        of_k6(text)


# ------------------------------------------------------------------------------------------------- the runs


def test_four_files_of_each_side_decide_a_contrast(tmp_path: Path) -> None:
    """What the other tools leave to the eye: is the new one slower?"""
    old = [k6_lines.lines(seed=k) for k in range(4)]
    new = [k6_lines.lines(median_ms=30.0, seed=10 + k) for k in range(4)]
    run = imported(tmp_path, "k6", old, new)
    (row,) = tabulate(run).contrasts.to_dict("records")
    assert (row["answer"], row["lifetimes"], row["looked_at"]) == ("differs", 4, 4)
    assert 1.1 < row["ratio_low"] < row["ratio"] == pytest.approx(1.5, rel=0.1)
    assert np.isnan(tabulate(run).trials["engine_cpu_us_per_request"]).all(), "no CPU time is in the file"
    few = imported(tmp_path / "few", "k6", old[:3], new[:3])
    (row,) = tabulate(few).contrasts.to_dict("records")
    assert (row["answer"], math.isnan(row["ratio_low"])) == ("undecided", True), "too few files for an interval"


def test_an_open_loop_and_users_are_arms_of_their_own(tmp_path: Path) -> None:
    """Their times are not those of one thing, and are never compared."""
    text = report("poisson")
    text["benchmarks"] += report("concurrent")["benchmarks"]
    run = imported(tmp_path, "guidellm", [json.dumps(text).encode()])
    assert [arm.client for arm in run.manifest.design.arms] == ["guidellm", "guidellm-users"]
    assert run.manifest.design.contrasts == ()
    assert run.manifest.rates_per_s[0] == [20.0]


def test_an_imported_run_is_shown_exported_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "derived", lambda run_id: tmp_path / "derived" / run_id)
    sides = [[k6_lines.lines(seed=10 * side + k) for k in range(4)] for side in (0, 1)]
    run = imported(tmp_path, "k6", *sides)
    assert cli.main(["show", str(run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "What do the files of k6 show?" in shown
    assert "Contrasts of the imported files: " in shown, "nobody named them before"
    assert cli.main(["export", str(run.folder)]) == 0
    assert 'client="k6"' in capsys.readouterr().out
    assert cli.main(["runs", "--data", str(run.folder.parent)]) == 0
    assert "import-k6" in capsys.readouterr().out


def test_the_command_prints_what_is_known_and_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--data", str(tmp_path / "runs")]
    assert cli.main(["import", "guidellm", str(FIXTURES / "poisson.json.gz"), *place]) == 0
    shown = capsys.readouterr().out
    assert "150 requests, 0 failed" in shown
    assert "claims no more:\n  own_limits: whether the client ran out" in shown
    assert ", imported" in shown
    assert "from the time at which guidellm's schedule had the request" in shown
    file = tmp_path / "points.json"
    file.write_bytes(k6_lines.lines())
    assert cli.main(["import", "k6", str(file), "--against", str(file), *place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schemas.schema("import"))
    assert [one["verdict"] for one in found["trials"]] == ["VALID", "VALID"]
    assert found["trials"][0]["response_p50_low_ms"] <= found["trials"][0]["response_p50_ms"]
    assert {one["gate"] for one in found["unjudged"]} == set(OF_CLIENT["k6"])
    assert found["contrasts"][0]["answer"] == "undecided"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wrk", "points.json"], "tool='wrk' is not known; accepted: guidellm, k6"),
        (["k6", "no-such-file"], "no-such-file cannot be read: No such file"),
        (["k6", "."], "cannot be read"),
        (["k6", __file__], "line 1 is no line of k6"),
        (["guidellm", __file__], "is no report of guidellm in JSON"),
        (["k6", "a", "b", "--against", "c"], "1 and 2 files: the k-th of each side are compared"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", *words, "--data", str(tmp_path / "runs")]) == 1
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert message in shown.err
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("client", IMPORTED)
def test_nothing_is_measured_with_a_client_whose_files_are_imported(client: str) -> None:
    design = Design(finding="f", arms=(Arm("rest", framework="triton", client=client),))
    with pytest.raises(ConfigError, match="makes no load here, its result files are imported; accepted: wire"):
        check(design)


# -------------------------------------------------------------------------------------------- hostile input

VALUES: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({})
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.sampled_from([b"\x1f\x8b", b"{", b"\x1f\x8b\x08\x00" + 20 * b"\0"]))
def test_any_bytes_are_a_load_or_one_error(data: bytes, tmp_path: Path) -> None:
    """A traceback says nothing to who gave the wrong file."""
    file = tmp_path / "file"
    for text in (data, gzip.compress(data), gzip.compress(data)[:-5]):
        file.write_bytes(text)
        for read in (guidellm.read, k6.read):
            message = ""
            try:
                assert read(file)
            except DataError as error:
                message = str(error)
            assert len(message.splitlines()) <= 1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), value=VALUES)
def test_a_damaged_report_is_a_run_or_one_error(
    seed: int, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any value in any place: it may be refused, and must never end in a traceback, also when it is judged."""
    rng, text = random.Random(seed), report("poisson")
    requests = text["benchmarks"][0]["requests"]
    requests["successful"] = requests["successful"][:20]
    text["benchmarks"][0]["metrics"]["request_totals"]["successful"] = 20
    _damage(rng, text, value)
    _survives(tmp_path_factory.mktemp("report"), "guidellm", json.dumps(text).encode())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), value=VALUES)
def test_damaged_lines_are_a_run_or_one_error(
    seed: int, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng, lines = random.Random(seed), k6_lines.lines(2, 4).splitlines()
    place = rng.randrange(len(lines))
    line = json.loads(lines[place])
    _damage(rng, line, value)
    lines[place] = json.dumps(line).encode()
    _survives(tmp_path_factory.mktemp("lines"), "k6", b"\n".join(lines))


def _damage(rng: random.Random, text: Any, value: object) -> None:
    """Put a value in a place of a JSON document, found by walking down at random."""
    while True:
        key = rng.choice(list(text)) if isinstance(text, dict) else rng.randrange(len(text))
        if not isinstance(text[key], dict | list) or not text[key] or rng.random() < 0.1:
            text[key] = value
            return
        text = text[key]


def _survives(tmp_path: Path, tool: str, text: bytes) -> None:
    file, message = tmp_path / "file", ""
    file.write_bytes(text)
    try:
        run = load_run(store(tool, [[file]], tmp_path / "runs"))
        assert all(trial.manifest.judged.text for trial in run.trials)
    except DataError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
