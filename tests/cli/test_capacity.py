"""``infscale capacity``: if these fail, the command says another rate than its trials show, or ends in a traceback."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.truth.capacity import truth

from helpers import raw_server
from infscale import cli
from infscale.cli import capacity
from infscale.experiment.capacity import Found, observe
from infscale.experiment.design.slo import Slo
from infscale.load.null_server import NullServer, null_server, service_times

ERROR = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a quiet machine could give is not asked for: no trial is spoilt."""
    monkeypatch.setattr(capacity, "spoilt_by", lambda *_: "")


def url(server: NullServer, protocol: str) -> str:
    return f"http://{server.rest}/" if protocol == "rest" else f"grpc://{server.grpc}/a.B/C"


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_server_with_constant_service_has_about_the_rate_that_its_queue_gives(
    protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """M/D/1 with 4 ms of service: p90 is 24 ms at 203/s. A busy machine may only make it slower, never faster."""
    true = 250 * truth("M/D/1", Slo("p90", 6.0))
    with null_server(service_ns=service_times("constant", 0.004, 1)) as idle:  # what follows the first takes no time
        assert (
            cli.main(["capacity", url(idle, protocol), "--slo", "p90<24ms", "--duration", "1", "--max-rate", "20"]) == 4
        )
    shown = capsys.readouterr().out
    assert "p90 within 24 ms at 20.0 requests/s and maybe more" in shown
    with null_server(service_ns=service_times("constant", 0.004, 100_000)) as server:
        code = cli.main(["capacity", url(server, protocol), "--slo", "p90<24ms", "--duration", "1", "--json"])
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == 0, summary["why"]
    assert summary["low_per_s"] <= summary["capacity_per_s"] <= summary["high_per_s"]
    assert summary["low_per_s"] < 1.02 * true
    assert summary["error_probability"] == 0.05
    assert 0 < summary["goodput_per_s"] <= summary["goodput_at_per_s"]
    assert summary["unloaded_ms"] >= 4
    assert 4 <= len(summary["trials"]) <= 12
    assert {one["hopeless"] for one in summary["trials"]} == {True, False}
    for one in summary["trials"]:
        assert one["kept"] == (one["late"] <= 0.1 * one["requests"])
        assert one["rate_per_s"] < 1.2 * true or not one["kept"]
        assert one["requests"] < one["planned"] or not one["hopeless"]


@pytest.mark.server
def test_a_limit_below_the_response_time_without_load_is_refused_with_that_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with null_server(service_ns=service_times("constant", 0.030, 100)) as server:
        assert cli.main(["capacity", url(server, "rest"), "--slo", "p99<20ms"]) == 1
    message = capsys.readouterr().err
    assert "--slo p99<20ms is below the response time without load: half of 20 requests" in message
    assert float(message.split("took ")[1].split(" ms")[0]) >= 30


def test_an_endpoint_that_answers_with_errors_is_named_with_status_and_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with raw_server.server(raw_server.replying(ERROR)) as address:
        assert cli.main(["capacity", address, "--slo", "p99<20ms"]) == 1
    message = capsys.readouterr().err
    assert f"no good answer from {address} without load" in message
    assert "http_503" in message
    assert "busy" in message


def test_an_endpoint_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["capacity", "http://127.0.0.1:1/", "--slo", "p99<20ms"]) == 1
    assert "connection refused" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slo", "50ms"], "--slo='50ms' is no limit of a percentile"),
        (["--slo", "p99<5s"], "--timeout 5 does not exceed the limit of --slo p99<5s"),
        (["--slo", "p99<50ms", "--max-rate", "0"], "--max-rate '0' cannot be used"),
        (["--slo", "p99<50ms", "--body", "no-such-file"], "--body 'no-such-file' cannot be read"),
        (["--slo", "p99<50ms", "--header", "x"], "--header 'x' is not a header"),
    ],
)
def test_bad_options_are_named_before_anything_is_sent(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["capacity", "http://127.0.0.1:1/", *options]) == 1
    assert message in capsys.readouterr().err


def test_without_an_objective_it_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["capacity", "http://127.0.0.1:1/"]) == 2
    assert "--slo" in capsys.readouterr().err


def test_the_sentence_says_rate_interval_error_and_trials_and_a_bound_says_why() -> None:
    slo = Slo("p99", 50.0)
    response = np.where(np.arange(1000) % 100, 10.0, 60.0)
    trial = observe(100.0, response, slo, 1000, hopeless=False, long=True)
    value, good = capacity.sentences(Found(104.0, 98.2, 111.0, "", "", [trial]), slo, 3.0)
    assert value == (
        "p99 within 50 ms up to 104 requests/s (95 % interval 98.2 to 111; the rate lies outside with a probability of "
        "5 % or less; 1 trials)."
    )
    assert good == "Goodput 99.0/s at 100 requests/s; 3 ms without load."
    assert capacity.line(trial, slo) == "λ = 100/s: 10 of 1,000 requests late (1 %), goodput 99.0/s: limit kept"
    (bound,) = capacity.sentences(Found(30.0, math.nan, math.nan, "≥", "it was late", [trial]), slo, 3.0)
    assert bound == "p99 within 50 ms at 30.0 requests/s and maybe more, 1 trials: it was late."
