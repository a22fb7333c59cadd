"""``infscale compare``: if these fail, an engineer chooses a protocol by a sentence that its numbers do not carry."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, build
from infscale import cli
from infscale.analysis.tables import Tables, tabulate
from infscale.cli import compare, options
from infscale.errors import ConfigError
from infscale.experiment import folder as folders
from infscale.experiment.design import time_plan
from infscale.experiment.design.design import Design
from infscale.load.null_server import null_server
from infscale.records import manifest as manifests
from infscale.records import runs

REST, GRPC = "http://127.0.0.1:1/", "grpc://127.0.0.1:1/a.B/C"


def tables_of(place: Path, capacities: dict[tuple[str, str], float]) -> Tables:
    one = {arm: rate for arm, rate in capacities.items() if arm[0] == TFSERVING}
    return tabulate(runs.load_run(build(place, one, grid=(0.1, 0.3, 0.45, 0.7, 1.2))))


@pytest.mark.parametrize(
    ("capacities", "time", "load"), [(GRPC_FASTER, "slower", "less"), (REST_FASTER, "faster", "more")]
)
def test_the_sentences_turn_with_the_data(
    capacities: dict[tuple[str, str], float], time: str, load: str, tmp_path: Path
) -> None:
    response, saturation, *_ = compare.report(tables_of(tmp_path, capacities), 60.0)
    numbers = r"([0-9.]+) times as (?:long|high) \(95 % interval ([0-9.]+) to ([0-9.]+), 4 lifetimes\)\."
    for sentence, start, above in (
        (response, f"REST is {time} than gRPC: its p95 response time is ", time == "slower"),
        (saturation, rf"REST keeps up with {load} load than gRPC: its λ\* is ", load == "more"),
    ):
        match = re.fullmatch(start + numbers, sentence)
        assert match, sentence
        assert all((float(number) > 1) == above for number in match.groups())


def test_what_is_not_decided_names_no_winner_and_says_what_would_decide(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, GRPC_FASTER)
    open_ = tables.contrasts.assign(answer="undecided", needed=30.0, needed_ratio=1.2)
    sentence = compare.report(dataclasses.replace(tables, contrasts=open_), 60.0)[0]
    assert sentence.startswith("Undecided whether REST or gRPC is faster (p95 response time ratio ")
    assert sentence.endswith("; about 30 lifetimes would decide a ratio of 1.2).")


def test_the_lines_below_hold_every_rate_each_saturation_rate_and_the_limit(tmp_path: Path) -> None:
    """A sentence without its numbers must be believed."""
    tables = tables_of(tmp_path, GRPC_FASTER)
    lines = compare.report(tables, 60.0)
    ratios = [line for line in lines if "p95 REST ÷ gRPC" in line]
    assert len(ratios) == tables.ratios["rate_per_s"].nunique()
    assert "unknown: one did not keep up" in ratios[-1]
    rest, grpc = (next(line for line in lines if line.startswith(f"  {name}: ")) for name in ("REST", "gRPC"))
    assert re.search(r"λ\* is [0-9,]+ requests/s \(.*\); p95 within 60 ms up to 900 requests/s; client CPU \d", rest)
    assert "p95 within 1 ms at no rate that was tried" in "\n".join(compare.report(tables, 1.0))
    assert grpc != rest
    assert "trials below λ* are VALID" in lines[-1]


@pytest.mark.parametrize(("text", "value"), [("50ms", 50.0), ("0.2s", 200.0), ("800us", 0.8)])
def test_times_are_read(text: str, value: float) -> None:
    assert options.milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["50", "ms", "-1ms", "1e3ms", "1.2.3s", "0ms"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        options.milliseconds(text)


@pytest.fixture
def bodies(tmp_path: Path) -> list[str]:
    for name in ("rest", "grpc"):
        (tmp_path / name).write_bytes(b"x" * 300)
    return ["--body-rest", str(tmp_path / "rest"), "--body-grpc", str(tmp_path / "grpc")]


@pytest.mark.parametrize(
    ("rest", "grpc", "message"),
    [(GRPC, GRPC, "--rest"), (REST, REST, "--grpc"), (REST, GRPC, "no good answer from http://127.0.0.1:1/")],
)
def test_bad_addresses_are_named(
    rest: str, grpc: str, message: str, bodies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--rest", rest, "--grpc", grpc, *bodies]) == 1
    assert message in capsys.readouterr().err


# --- budget, and more time ---


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that is refused before anything is sent: nobody listens at these addresses."""
    assert cli.main(["compare", "--rest", REST, "--grpc", GRPC, *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_a_budget_that_is_too_little_is_refused_with_the_least(
    bodies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four lifetimes are the first look: with fewer, minutes of load end without an answer."""
    message = refused([*bodies, "--budget", "10s"], capsys)
    least = re.search(
        r"budget_s=10 is too little: 4 lifetimes of each of 1 group of arms take about .*; accepted: (\d+) s or more",
        message,
    )
    assert least, message
    time_plan.check_budget(compare.design_of(REST, GRPC, budget_s=float(least[1])))
    time_plan.check_budget(compare.design_of(REST, GRPC, budget_s=240.0))


def stored(place: Path, design: Design, **changes: Any) -> Path:
    """A complete run of a design, as if it had been measured here, but for some changes."""
    folder = folders.folder_for(design, place)
    manifest = manifests.read(folder / "run.json", manifests.RunManifest)
    manifests.write(folder / "run.json", msgspec.structs.replace(manifest, status="complete", **changes))
    return folder


def test_more_time_goes_to_a_complete_comparison_of_the_same_addresses_alone(
    bodies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lifetimes of another service in one contrast would be the ratio of nothing."""
    more = [*bodies, "--more", "1m"]
    assert "--more needs --data" in refused(more, capsys)
    more += ["--data", str(tmp_path)]
    assert f"--more: there is no complete comparison in {tmp_path}" in refused(more, capsys)
    folder = stored(tmp_path, compare.design_of(REST, "grpc://127.0.0.1:9/a.B/C"))
    assert f"--more: {folder} compares other addresses" in refused(more, capsys)


def test_more_time_of_another_machine_is_refused_by_name(
    bodies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lifetimes differ by the machine, and the interval would cover neither."""
    design = compare.design_of(REST, GRPC)
    machine = folders._new_manifest(design).machine
    stored(tmp_path, design, machine=msgspec.structs.replace(machine, cpu="Another CPU"))
    message = refused([*bodies, "--more", "1m", "--data", str(tmp_path)], capsys)
    assert "cannot be continued here: the machine differs from the one that measured it; measure anew" in message


@pytest.mark.server
def test_two_real_addresses_are_compared(bodies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the sentences, against a real server, which is as fast over both: both keep up."""
    sizes = ["--budget", "2m", "--max-rate", "400", "--data", str(tmp_path)]
    with null_server() as server:
        urls = ["--rest", f"http://{server.rest}/", "--grpc", f"grpc://{server.grpc}/a.B/C"]
        assert cli.main(["compare", *urls, *bodies, *sizes]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"p95 REST ÷ gRPC ", printed)) >= 2
    assert "client CPU" in printed
    (folder,) = tmp_path.glob("*-compare-*")
    rates = [t.manifest.rate_per_s for t in runs.load_run(folder).trials]
    assert max(rates) <= 400
    assert runs.newest(tmp_path, runs.HEADLINE) is None, "else it would be drawn as the headline experiment"
