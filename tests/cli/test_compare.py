"""``infscale compare``: if these fail, an engineer chooses a protocol by a sentence that its numbers do not carry."""

import dataclasses
import re
from pathlib import Path

import pytest

from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, build
from infscale import cli
from infscale.analysis.tables import Tables, tabulate
from infscale.cli import compare, options
from infscale.errors import ConfigError
from infscale.load.null_server import null_server
from infscale.records import runs


def tables_of(place: Path, capacities: dict[tuple[str, str], float]) -> Tables:
    one = {arm: rate for arm, rate in capacities.items() if arm[0] == TFSERVING}
    return tabulate(runs.load_run(build(place, one, replicates=5, grid=(0.1, 0.2, 0.3, 1.2))))


def test_the_sentence_turns_with_the_data(tmp_path: Path) -> None:
    for capacities, faster in ((GRPC_FASTER, "gRPC"), (REST_FASTER, "REST")):
        sentence = compare.verdict(tables_of(tmp_path / faster, capacities), 60.0)
        slower = "REST" if faster == "gRPC" else "gRPC"
        times = rf"the p95 response time of {slower} is ([0-9.]+) to ([0-9.]+) times that of {faster} at "
        match = re.match(f"{faster} answers faster: {times}", sentence)
        assert match, sentence
        assert 1 < float(match[1]) < float(match[2])
        assert "λ* of REST lies" in sentence


def test_without_a_difference_the_cost_of_finding_one_is_reported(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, GRPC_FASTER)
    ratios = tables.contrasts.assign(p_holm=0.4, conclusion="cannot conclude", spread=0.05, replicates=5)
    sentence = compare.verdict(dataclasses.replace(tables, contrasts=ratios), 60.0)
    assert sentence.startswith(
        "Cannot conclude which protocol answers faster: finding a difference of 10 % here takes 5 repl"
    )
    assert "icates (about 5 min 00 s)" in sentence


def test_a_spread_beyond_any_number_of_replicates_is_said_to_be_too_much(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, GRPC_FASTER)
    ratios = tables.contrasts.assign(p_holm=0.4, conclusion="cannot conclude", spread=50.0, replicates=5)
    sentence = compare.verdict(dataclasses.replace(tables, contrasts=ratios), 60.0)
    assert "too much: not even 1,000 replicates would show a difference of 10 %" in sentence


def test_without_enough_valid_replicates_there_is_nothing_to_compare(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, GRPC_FASTER)
    ratios = tables.contrasts.assign(conclusion="cannot conclude", replicates=2)
    sentence = compare.verdict(dataclasses.replace(tables, contrasts=ratios), 60.0)
    reason = "there is no arrival rate at which both were VALID in at least 3 replicates and never SATURATED"
    assert sentence.startswith(f"Cannot conclude which protocol answers faster: {reason}; λ* of REST lies ")


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
    [
        ("grpc://127.0.0.1:1/a.B/C", "grpc://127.0.0.1:1/a.B/C", "--rest"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/", "--grpc"),
        ("http://127.0.0.1:1/", "grpc://127.0.0.1:1/a.B/C", "no good answer from http://127.0.0.1:1/"),
    ],
)
def test_bad_addresses_are_named(
    rest: str, grpc: str, message: str, bodies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--rest", rest, "--grpc", grpc, *bodies]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.server
def test_two_real_addresses_are_compared(bodies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the sentence, against a real server, which is as fast over both: both keep up."""
    sizes = ["--replicates", "3", "--duration", "0.4", "--max-rate", "400", "--data", str(tmp_path)]
    with null_server() as server:
        urls = ["--rest", f"http://{server.rest}/", "--grpc", f"grpc://{server.grpc}/a.B/C"]
        assert cli.main(["compare", *urls, *bodies, *sizes]) == 0
    sentence = capsys.readouterr().out
    assert len(re.findall(r"p95 REST ÷ gRPC = ", sentence)) == 5
    assert "client CPU" in sentence
    (folder,) = tmp_path.glob("*-compare")
    rates = [t.manifest.rate_per_s for t in runs.load_run(folder).trials]
    assert max(rates) <= 400
    assert runs.newest(tmp_path, runs.HEADLINE) is None, "else it would be drawn as the headline experiment"
