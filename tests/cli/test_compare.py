"""``infscale compare``: if these fail, an engineer chooses a protocol by a sentence that its numbers do not carry."""

import re
from pathlib import Path

import pandas as pd
import pytest

from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, TFSERVING, build
from infscale import cli
from infscale.analysis.tables import summary
from infscale.cli import compare
from infscale.errors import ConfigError
from infscale.load.null_server import null_server
from infscale.records import runs

Tables = dict[str, pd.DataFrame]


def tables_of(place: Path, capacities: dict[tuple[str, str], float]) -> Tables:
    one = {arm: rate for arm, rate in capacities.items() if arm[0] == TFSERVING}
    return summary.summarise(runs.load_run(build(place, one, replicates=5, grid=(0.1, 0.2, 0.3, 1.2))))


def test_the_sentence_turns_with_the_data(tmp_path: Path) -> None:
    for capacities, quick in ((GRPC_FASTER, "gRPC"), (REST_FASTER, "REST")):
        said = compare.verdict(tables_of(tmp_path / quick, capacities), 60.0)
        found = re.match(rf"{quick} answers p95 ([0-9.]+)–([0-9.]+)× faster", said)
        assert found, said
        assert 1 < float(found[1]) < float(found[2])
        assert "λ* of REST lies" in said


def test_without_a_difference_the_cost_of_finding_one_is_told(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, GRPC_FASTER)
    ratios = tables["ratios"].assign(p_holm=0.4, conclusion="cannot conclude", spread=0.05, replicates=5)
    said = compare.verdict(tables | {"ratios": ratios}, 60.0)
    assert said.startswith("Cannot conclude which answers faster: to tell a difference of 10% apart here needs 5 repl")
    assert "5 min 00 s" in said


@pytest.mark.parametrize(("text", "value"), [("50ms", 50.0), ("0.2s", 200.0), ("800us", 0.8)])
def test_times_are_read(text: str, value: float) -> None:
    assert compare.milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["50", "ms", "-1ms", "1e3ms", "1.2.3s", "0ms"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        compare.milliseconds(text)


@pytest.fixture
def bodies(tmp_path: Path) -> list[str]:
    for name in ("rest", "grpc"):
        (tmp_path / name).write_bytes(b"x" * 300)
    return ["--body-rest", str(tmp_path / "rest"), "--body-grpc", str(tmp_path / "grpc")]


@pytest.mark.parametrize(
    ("rest", "grpc", "told"),
    [
        ("grpc://127.0.0.1:1/a.B/C", "grpc://127.0.0.1:1/a.B/C", "--rest"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/", "--grpc"),
        ("http://127.0.0.1:1/", "grpc://127.0.0.1:1/a.B/C", "no good answer from http://127.0.0.1:1/"),
    ],
)
def test_bad_addresses_are_named(
    rest: str, grpc: str, told: str, bodies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--rest", rest, "--grpc", grpc, *bodies]) == 1
    assert told in capsys.readouterr().err


def test_two_real_addresses_are_compared(bodies: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the sentence, against a real server, which is as fast over both: both keep up."""
    sizes = ["--replicates", "3", "--seconds", "0.4", "--max-rate", "400", "--out", str(tmp_path)]
    with null_server() as server:
        urls = ["--rest", f"http://{server.rest}/", "--grpc", f"grpc://{server.grpc}/a.B/C"]
        assert cli.main(["compare", *urls, *bodies, *sizes]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"p95 REST ÷ gRPC = ", said)) == 5
    assert "client CPU" in said
    (folder,) = tmp_path.glob("*-compare")
    rates = [t.manifest["rate_per_s"] for t in runs.load_run(folder).trials]
    assert max(rates) <= 400
    assert runs.newest(tmp_path, "protocol-grid") is None, "else it would be drawn as the headline experiment"
