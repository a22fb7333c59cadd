"""``infscale compare``: if these fail, a slower version is merged, or a sound one is held up, by a sentence that its
numbers do not carry."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, build
from helpers.virtual_lab import Lab, move_in
from infscale import cli
from infscale.analysis.candidate.judgement import margins
from infscale.analysis.tables import Tables, tabulate
from infscale.cli import compare, compare_report, options
from infscale.cli.compare_report import Case, Comparison
from infscale.errors import ConfigError
from infscale.experiment import folder as folders
from infscale.experiment.design import time_plan
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.load.null_server import null_server
from infscale.records import manifest as manifests
from infscale.records import runs
from infscale.records.runs import Run
from infscale.servers.null.emission import Emission

REST, GRPC = "http://127.0.0.1:1/", "grpc://127.0.0.1:1/a.B/C"
NAMES = ("REST", "gRPC")
EDGES = margins(0.05)


def run_of(place: Path, capacities: dict[tuple[str, str], float], **sizes: Any) -> Run:
    one = {arm: rate for arm, rate in capacities.items() if arm[0] == TFSERVING}
    return runs.load_run(build(place, one, grid=(0.1, 0.3, 0.45, 0.7, 1.2), **sizes))


def text_of(run: Run, tables: Tables | None = None, slo: float = 60.0) -> list[str]:
    """The lines that are said of a run in which REST is the candidate."""
    comparison = compare_report.of_endpoints(run, tables or tabulate(run, slo), NAMES, EDGES, slo)
    return compare_report.text(comparison).splitlines()


@pytest.mark.parametrize(
    ("capacities", "time", "load", "judgement"),
    [(GRPC_FASTER, "slower", "less", "worse"), (REST_FASTER, "faster", "more", "not worse")],
)
def test_the_sentences_turn_with_the_data(
    capacities: dict[tuple[str, str], float], time: str, load: str, judgement: str, tmp_path: Path
) -> None:
    whole, response, saturation, *_ = text_of(run_of(tmp_path, capacities))
    assert whole.startswith(f"{judgement.capitalize()}: ")
    numbers = r"([0-9.]+) times as (?:long|high) \(95 % interval ([0-9.]+) to ([0-9.]+), 4 lifetimes\)"
    for sentence, start, above in (
        (response, f"REST is {time} than gRPC: its p95 response time is ", time == "slower"),
        (saturation, rf"REST keeps up with {load} load than gRPC: its λ\* is ", load == "more"),
    ):
        match = re.fullmatch(f"{start}{numbers}: {judgement}\\.", sentence)
        assert match, sentence
        assert all((float(number) > 1) == above for number in match.groups())


def test_what_is_not_decided_names_no_winner_and_says_what_would_decide(tmp_path: Path) -> None:
    run = run_of(tmp_path, GRPC_FASTER)
    tables = tabulate(run)
    open_ = tables.contrasts.assign(
        answer="undecided", needed=30.0, needed_ratio=1.2, ratio_low=0.8, ratio_high=1.3, spread=0.1
    )
    whole, sentence, *_ = text_of(run, dataclasses.replace(tables, contrasts=open_))
    assert whole.startswith("Undecided: p95 response time and λ* could be within the margin or beyond it")
    assert sentence.startswith("Undecided whether REST or gRPC is faster (p95 response time ratio ")
    assert "; about 30 lifetimes would decide a ratio of 1.2): undecided (an equal candidate would need " in sentence


def test_the_lines_below_hold_every_rate_each_saturation_rate_and_the_limit(tmp_path: Path) -> None:
    """A sentence without its numbers must be believed."""
    run = run_of(tmp_path, GRPC_FASTER)
    tables = tabulate(run, 60.0)
    lines = text_of(run, tables)
    ratios = [line for line in lines if "p95 candidate ÷ reference" in line]
    assert len(ratios) == tables.ratios["rate_per_s"].nunique()
    assert "unknown: one did not keep up" in ratios[-1]
    rest, grpc = (next(line for line in lines if line.startswith(f"  {name}: ")) for name in NAMES)
    assert re.search(r"λ\* is [0-9,]+ requests/s \(.*\); p95 within 60 ms up to 900 requests/s; client CPU \d", rest)
    assert "p95 within 1 ms at no rate that was tried" in "\n".join(text_of(run, slo=1.0))
    assert grpc != rest
    assert "trials below λ* are VALID" in lines[-1]


# --- the whole procedure, in virtual time ---


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Compares endpoints of given capacities, requests/s, whose speed varies by 1 % between trials; the exit code."""

    def judge(reference: float, candidate: float, *arguments: str) -> int:
        rng = np.random.default_rng(5)
        own = {"reference": reference, "candidate": candidate}

        def capacity(arm: Arm) -> float:
            return own[arm.model] * float(np.exp(rng.normal(0, 0.01)))

        move_in(Lab(capacity), monkeypatch)
        monkeypatch.setattr(compare.Requests, "fault", lambda self: "")
        monkeypatch.setattr("secrets.randbits", lambda bits: 7)  # the seed of every new run
        return cli.main(["compare", REST, "http://127.0.0.1:2/", *arguments])

    return judge


@pytest.mark.parametrize(
    ("candidate", "code", "said"), [(2000.0, 0, "Not worse"), (3000.0, 0, "Not worse"), (1600.0, 1, "Worse")]
)
def test_the_exit_code_is_the_judgement(
    candidate: float,
    code: int,
    said: str,
    judged: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {name: tmp_path / name for name in ("gate.xml", "summary.md")}
    report = ["--junit", str(files["gate.xml"]), "--markdown", str(files["summary.md"])]
    assert judged(2000.0, candidate, *report) == code
    printed = capsys.readouterr().out
    assert f"\n{said}: the candidate is " in printed
    assert "the candidate (REST at 127.0.0.1:2)" in printed.lower().replace("rest", "REST")
    suite = ElementTree.parse(files["gate.xml"]).getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("2", "0")
    assert (int(suite.get("failures", "")) > 0) == (code == 1)
    table = files["summary.md"].read_text()
    assert table.startswith(f"**{said}: ")
    assert len(re.findall(r"^\| (?:p95 response time|λ\\\*) \|", table, re.MULTILINE)) == 2


def test_a_candidate_within_a_wider_margin_is_not_worse(judged: Callable[..., int]) -> None:
    """An engineer who sets the margin tolerates what lies within it."""
    margin = ["--at-most", "60%", "--budget", "2m"]
    assert judged(2000.0, 1600.0, *margin) == 0
    assert judged(2000.0, 1600.0, *margin, "--at-most-load", "1%") == 1


def test_what_the_budget_does_not_decide_is_exit_code_3(judged: Callable[..., int]) -> None:
    """A margin within the noise: neither a pass nor a failure is true."""
    assert judged(2000.0, 2000.0, "--budget", "1m", "--at-most", "0.1%") == 3


def test_both_that_keep_up_with_every_rate_are_not_worse_from_six_lifetimes_on(
    judged: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--max-rate spares a service; a λ* beyond it has no ratio. And time that is added decides."""
    limited = ["--max-rate", "300", "--at-most", "20%", "--data", str(tmp_path)]
    assert judged(2000.0, 2000.0, *limited, "--budget", "1m") == 3, "four lifetimes do not say it"
    assert "Undecided: λ* could be" in capsys.readouterr().out
    assert judged(2000.0, 2000.0, *limited, "--more", "2m") == 0
    assert "kept up with every rate that was offered, up to 300 requests/s: not worse." in capsys.readouterr().out
    assert len(list(tmp_path.glob("*-compare-*"))) == 1


# --- reports ---


def comparison_of(*judgements: str, sentence: str = "A sentence.") -> Comparison:
    return Comparison(
        [Case(f"case {k}", said, "1.2", "at most 1.05", sentence) for k, said in enumerate(judgements)], []
    )


def test_junit_has_a_test_case_for_each_contrast(tmp_path: Path) -> None:
    """A CI system shows its file, and nothing else of what was measured."""
    file = tmp_path / "gate.xml"
    compare_report.junit(
        file, comparison_of("worse", "undecided", "not worse", sentence="p95 \x00\x1b[31m < 2 & λ* ]]>")
    )
    suite = ElementTree.parse(file).getroot()
    counts = [suite.get(name) for name in ("tests", "failures", "skipped", "errors")]
    assert counts == ["3", "1", "1", "0"]
    assert [[part.tag for part in case] for case in suite] == [["failure"], ["skipped"], ["system-out"]]
    assert all("< 2 & λ* ]]>" in "".join(case.itertext()) for case in suite)


def test_markdown_begins_with_the_sentence_and_keeps_what_is_there(tmp_path: Path) -> None:
    """$GITHUB_STEP_SUMMARY may hold what the step wrote before."""
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    compare_report.markdown(file, comparison_of("undecided", sentence="a | b"))
    before, first, *_, last = file.read_text().splitlines()
    assert before == "before"
    assert first == "**Undecided: case 0 could be within the margin or beyond it.**"
    assert last == "- a \\| b"


# --- bad input ---


@pytest.mark.parametrize(("text", "value"), [("50ms", 50.0), ("0.2s", 200.0), ("800us", 0.8)])
def test_times_are_read(text: str, value: float) -> None:
    assert options.milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["50", "ms", "-1ms", "1e3ms", "1.2.3s", "0ms"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        options.milliseconds(text)


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that is refused before anything is sent; 1 would say that the candidate is worse."""
    assert cli.main(["compare", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://127.0.0.1:1/", REST], "scheme 'ftp'"),
        ([REST, "h2c://127.0.0.1:1/"], "'h2c://127.0.0.1:1/' cannot be compared; accepted: http://host:port/path or "),
        ([REST, REST], "no good answer from http://127.0.0.1:1/: refused"),
        ([REST, GRPC], "refused connect: Connection refused; grpc://127.0.0.1:1/a.B/C: refused"),
        ([REST, "data"], "accepted: two addresses, or the folders of two stored runs"),
        (["no/such/run", "data"], "is not a run"),
        ([REST], "Missing argument 'CANDIDATE'"),
        ([REST, REST, "--at-most", "-5%"], "--at-most '-5%' cannot be used; accepted: above 0%"),
        ([REST, REST, "--at-most", "0%"], "--at-most '0%' cannot be used; accepted: above 0%"),
        ([REST, REST, "--at-most", "5"], "--at-most '5' cannot be used; accepted: above 0%"),
        ([REST, REST, "--at-most-load", "nan%"], "--at-most-load 'nan%' cannot be used"),
        ([REST, REST, "--junit", "no/such/folder/gate.xml"], "--junit 'no/such/folder/gate.xml' cannot be written"),
        ([REST, GRPC, "--body", __file__], "give --body-reference and --body-candidate"),
        ([REST, REST, "--body-candidate", "no-such-file"], "--body-candidate 'no-such-file' cannot be read"),
    ],
)
def test_bad_input_is_named_and_is_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(arguments, capsys)


def test_an_error_of_the_program_is_not_taken_for_a_slower_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit code of a traceback is 1."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(compare, "_endpoints", broken)
    assert "ZeroDivisionError: broken" in refused([REST, REST], capsys)


def test_an_error_is_in_the_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CI job that shows its file alone must not show nothing."""
    xml, table = tmp_path / "gate.xml", tmp_path / "summary.md"
    refused([REST, REST, "--junit", str(xml), "--markdown", str(table)], capsys)
    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    assert "no good answer from http://127.0.0.1:1/" in "".join(suite.itertext())
    assert table.read_text().startswith("**Error:** no good answer from")


# --- budget, and more time ---


def test_a_budget_that_is_too_little_is_refused_with_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    """Four lifetimes are the first look: with fewer, minutes of load end without an answer."""
    message = refused([REST, REST, "--budget", "10s"], capsys)
    least = re.search(
        r"budget_s=10 is too little: 4 lifetimes of each of 1 group of arms take about .*; accepted: (\d+) s or more",
        message,
    )
    assert least, message
    assert float(least[1]) <= 60, "a minute is enough"
    time_plan.check_budget(compare.design_of(REST, REST, budget_s=float(least[1])))
    assert compare.design_of(REST, GRPC, budget_s=60.0).trial_s < compare.design_of(REST, GRPC, budget_s=180.0).trial_s


def stored(place: Path, design: Design, **changes: Any) -> Path:
    """A complete run of a design, as if it had been measured here, but for some changes."""
    folder = folders.folder_for(design, place)
    manifest = manifests.read(folder / "run.json", manifests.RunManifest)
    manifests.write(folder / "run.json", msgspec.structs.replace(manifest, status="complete", **changes))
    return folder


def test_more_time_goes_to_a_complete_comparison_of_the_same_addresses_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lifetimes of another service in one contrast would be the ratio of nothing."""
    more = [REST, GRPC, "--more", "1m"]
    assert "--more needs --data" in refused(more, capsys)
    more += ["--data", str(tmp_path)]
    assert f"--more: there is no complete comparison in {tmp_path}" in refused(more, capsys)
    folder = stored(tmp_path, compare.design_of(REST, "grpc://127.0.0.1:9/a.B/C"))
    assert f"--more: {folder} compares other addresses" in refused(more, capsys)


def test_more_time_of_another_machine_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lifetimes differ by the machine, and the interval would cover neither."""
    design = compare.design_of(REST, GRPC)
    machine = folders._new_manifest(design).machine
    stored(tmp_path, design, machine=msgspec.structs.replace(machine, cpu="Another CPU"))
    message = refused([REST, GRPC, "--more", "1m", "--data", str(tmp_path)], capsys)
    assert "cannot be continued here: the machine differs from the one that measured it; measure anew" in message


# --- two stored runs ---


def other_run(run: Run, **changes: Any) -> Run:
    """A run that differs from another by its id and some changes."""
    manifest = msgspec.structs.replace(run.manifest, run_id="another-run", **changes)
    return dataclasses.replace(run, manifest=manifest)


def of_runs(place: Path, second: dict[tuple[str, str], float], **sizes: Any) -> tuple[Path, Path]:
    """The folders of a run, and of a later one of other capacities."""
    first = run_of(place / "first", GRPC_FASTER, searches=True, lifetimes=8, **sizes)
    later = run_of(place / "later", second, searches=True, lifetimes=8, seed=2, **sizes)
    text = (later.folder / "run.json").read_text().replace(later.id, "later")
    (later.folder / "run.json").write_text(text)
    for file in (later.folder / "trials").glob("*.json"):
        file.write_text(file.read_text().replace(later.id, "later"))
    return first.folder, later.folder


@pytest.mark.parametrize(("speed", "code"), [(1.0, 0), (0.8, 1)])
def test_two_stored_runs_are_judged(
    speed: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capacities = {arm: rate * speed for arm, rate in GRPC_FASTER.items()}
    folders_ = of_runs(tmp_path, capacities)
    assert cli.main(["compare", *map(str, folders_), "--at-most", "20%", "--at-most-load", "10%"]) == code
    printed = capsys.readouterr().out
    assert "The runs share no lifetimes" in printed
    assert len(re.findall(r"8 and 8 lifetimes: (?:not )?worse\.", printed)) >= 1
    assert "corrected for 4 contrasts (Bonferroni)" in printed


def test_runs_that_cannot_be_compared_are_refused_by_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ratio of two machines, or of two designs, says nothing of the candidate."""
    first, later = of_runs(tmp_path, GRPC_FASTER, duration_s=1.0)
    assert "are the same run" in refused([str(first), str(first)], capsys)
    good = manifests.read(later / "run.json", manifests.RunManifest)
    arms = good.design.arms
    for change, message in (
        ({"machine": msgspec.structs.replace(good.machine, cpu="Z80")}, "the machine's cpu (Synthetic CPU and Z80)"),
        ({"design": msgspec.structs.replace(good.design, timeout_s=9.0)}, "the design's timeout_s ("),
        (
            {
                "design": msgspec.structs.replace(
                    good.design, arms=(msgspec.structs.replace(arms[0], batch=2), *arms[1:])
                )
            },
            "the design's arms",
        ),
        ({"code_digest": "another"}, "the code that measures"),
        ({"pilot": {0: good.pilot[0]}}, "what was measured ("),
        ({"status": "interrupted"}, "is not complete"),
    ):
        manifests.write(later / "run.json", msgspec.structs.replace(good, **change))
        assert message in refused([str(first), str(later)], capsys)


# --- real servers ---


@pytest.mark.server
def test_two_real_addresses_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the sentences: the candidate speaks another protocol, and takes 20 ms longer."""
    for name in ("rest", "grpc"):
        (tmp_path / name).write_bytes(b"x" * 300)
    bodies = ["--body-reference", str(tmp_path / "rest"), "--body-candidate", str(tmp_path / "grpc")]
    sizes = ["--budget", "1m", "--max-rate", "1000", "--data", str(tmp_path)]
    slow = np.full(1_000_000, 20_000_000, np.int64)
    with null_server() as fast, null_server(service_ns=slow, workers=64) as slower:
        urls = [f"http://{fast.rest}/", f"grpc://{slower.grpc}/a.B/C"]
        code = cli.main(["compare", *urls, *bodies, *sizes])
    printed = capsys.readouterr().out
    assert code in (1, 3), printed  # 3 where the machine spoilt the trials
    assert f"gRPC at {slower.grpc}" in printed
    assert len(re.findall(r"p95 candidate ÷ reference ", printed)) >= 2
    assert "client CPU" in printed
    (folder,) = tmp_path.glob("*-compare-*")
    trials = [t.manifest for t in runs.load_run(folder).trials]
    assert max(t.rate_per_s for t in trials) <= 1000
    assert {(t.arm.protocol, t.arm.model) for t in trials} == {("rest", "reference"), ("grpc", "candidate")}
    assert runs.newest(tmp_path, runs.HEADLINE) is None, "else it would be drawn as the headline experiment"


@pytest.mark.server
def test_an_endpoint_that_answers_with_errors_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Its errors may be fast: a gate that only measured time would let it pass."""
    import http.server
    import threading

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"no model is loaded")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as broken, null_server() as sound:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{broken.server_port}/"
        message = refused([f"http://{sound.rest}/", url], capsys)
        broken.shutdown()
    assert f"no good answer from {url}: http_503" in message
    assert "no model is loaded" in message


# --- streams ---


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Compares two endpoints that stream alike, but that something holds the candidate's messages for a time, ms."""

    def judge(held_ms: float, *arguments: str) -> int:
        rng = np.random.default_rng(5)
        lab = Lab(
            lambda arm: 2000.0 * float(np.exp(rng.normal(0, 0.01))),
            held_ms=lambda arm: held_ms * float(np.exp(rng.normal(0, 0.01))) if arm.model == "candidate" else 0.0,
            stream=lambda arm: msgspec.structs.replace(
                arm, messages=20, message_bytes=32, interval_ms=5.0 * float(np.exp(rng.normal(0, 0.001)))
            ),
        )
        move_in(lab, monkeypatch)
        monkeypatch.setattr(compare.Requests, "fault", lambda self: "")
        monkeypatch.setattr("secrets.randbits", lambda bits: 7)
        return cli.main(["compare", REST, "http://127.0.0.1:2/", "--sse", *arguments])

    return judge


def test_a_candidate_that_collects_its_messages_is_worse(
    streamed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its p95 of whole responses hardly differs: a stream of 100 ms is held for 20 ms more."""
    assert streamed(20.0) == 1
    text = capsys.readouterr().out
    assert "the candidate (REST at 127.0.0.1:2) brings its first message later than" in text.replace("The c", "the c")
    assert "has longer gaps between messages than" in text
    assert re.search(r"first message [0-9.]+ ms from the schedule, [0-9.]+ ms from the send; gaps 0 ms at p50", text)


def test_the_options_of_streams_that_exclude_each_other_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([REST, REST, "--messages", "3"], "--messages needs --stream or --sse"),
        ([GRPC, GRPC, "--sse"], "--sse is a way of REST"),
        ([REST, REST, "--sse", "--stream"], "--stream and --sse exclude each other"),
    ):
        assert cli.main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_four_contrasts_share_the_error_of_calling_a_candidate_worse() -> None:
    """Without the correction of their intervals an equal candidate would be called worse in one run of ten."""
    design = compare.design_of(REST, "http://127.0.0.1:2/", messages=0)
    assert [one.metric for one in design.contrasts] == [
        "response_p95_ms",
        "saturation_per_s",
        "first_message_p95_ms",
        "gap_p99_ms",
    ]
    assert set(EDGES) == {one.metric for one in design.contrasts}
    assert [arm.messages for arm in design.arms] == [0, 0]


@pytest.mark.server
def test_the_streams_of_two_real_endpoints_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events over REST against messages over gRPC: both come from one server, at the same times."""
    with null_server(stream=Emission(tuple(range(0, 10_000_000, 2_000_000)))) as server:
        rest, grpc = f"http://{server.rest}/", f"grpc://{server.grpc}/a.B/C"
        sizes = ["--budget", "1m", "--max-rate", "1000", "--data", str(tmp_path)]
        code = cli.main(["compare", grpc, rest, "--sse", "--messages", "5", *sizes])
        assert code in (0, 1, 3)
        text = capsys.readouterr().out
        assert re.search(r"REST at .*: p95 to the first message [0-9.]+ ms from the schedule", text)
        (folder,) = [path.parent for path in tmp_path.glob("*/run.json")]
        run = runs.load_run(folder)
        assert {one.manifest.messages == 5 * one.manifest.rows for one in run.trials} == {True}
        assert cli.main(["compare", grpc, rest, "--sse", "--messages", "3"]) == 2
        assert "stream_many" in capsys.readouterr().err
