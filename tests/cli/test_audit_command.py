"""If these fail, a script that audits a server takes its failure for a success, or waits for one that cannot be."""

import contextlib
from collections.abc import Iterator

import pandas as pd
import pytest

from infscale import cli
from infscale.cli import audit as command
from infscale.deployment.endpoint import Endpoint
from infscale.experiment.beside import audit
from infscale.experiment.beside.audit import Accuracy
from infscale.load import loadgen_client


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Nothing is deployed; what would have been is noted."""
    calls: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def serve(*args: str) -> Iterator[Endpoint]:
        calls.append(args)
        yield Endpoint("tfserving", "fake", "1", "a server", "none", "mlp", "127.0.0.1:1", "127.0.0.1:2")

    monkeypatch.setattr(command, "_served", serve)
    return calls


def found(fresh_ms: list[float], hits: float | None = None) -> pd.DataFrame:
    """Rounds in which repeated requests take 1 ms."""
    rows = []
    for number, ms in enumerate(fresh_ms, 1):
        rows.append({"round": number, "kind": "fresh", "p50_ms": ms, "hits": hits and 0.0, "misses": hits and 100.0})
        rows.append({"round": number, "kind": "repeated", "p50_ms": 1.0, "hits": hits, "misses": hits and 0.0})
    return pd.DataFrame(rows).astype({"hits": float, "misses": float})


@pytest.mark.parametrize(
    ("rounds", "code", "said"),
    [
        (found([1.0, 1.01, 0.99, 1.02]), command.PASSED, "equally fast"),
        (found([2.0, 2.1, 2.2, 1.9], hits=100.0), command.PASSED, "a cache is the factor"),
        (found([2.0, 2.1, 2.2, 1.9]), command.FAILED, "unexplained"),
        (found([2.0, 0.5, 1.4, 0.9]), command.UNDECIDED, "undecided"),
    ],
)
def test_the_exit_code_and_a_sentence_tell_the_outcome(
    rounds: pd.DataFrame,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    served: list[tuple[str, ...]],
) -> None:
    monkeypatch.setattr(audit, "rounds", lambda *_, **__: rounds)
    assert cli.main(["audit", "tfserving", "--protocols", "grpc", "--cache", "gateway", "--seed", "7"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a server, gRPC, 100/s, seed 7: ")
    assert said in line
    assert served == [("tfserving", "mlp", "gateway")]


def test_the_worse_of_two_protocols_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([found([2.0, 2.1, 2.2, 1.9]), found([1.0, 1.01, 0.99, 1.02])])
    monkeypatch.setattr(audit, "rounds", lambda *_, **__: next(answers))
    assert cli.main(["audit", "tfserving"]) == command.FAILED


@pytest.mark.parametrize(("agreeing", "code"), [(256, command.PASSED), (255, command.FAILED)])
def test_one_answer_that_does_not_agree_fails(
    agreeing: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        audit, "accuracy", lambda _, protocol: Accuracy(protocol, "json", 256, agreeing, 0, 0.5, 1e-4, {})
    )
    assert cli.main(["audit", "tfserving", "--accuracy", "--protocols", "rest"]) == code
    assert f"{agreeing} of 256 answers over rest (json) agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cache", "attic"], "--cache='attic' is not known; accepted: gateway, none, server"),
        (["--protocols", "soap"], "accepted: grpc, rest"),
        (["--rounds", "2"], "--rounds '2' cannot be used"),
        (["--rate", "0"], "--rate '0' cannot be used"),
    ],
)
def test_bad_input_starts_nothing(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], served: list[tuple[str, ...]]
) -> None:
    assert cli.main(["audit", "tfserving", *args]) == 1
    assert said in capsys.readouterr().err
    assert served == []


def test_accuracy_without_loadgen_says_how_to_get_it_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], served: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(loadgen_client, "package_version", lambda *_: "")
    assert cli.main(["audit", "tfserving", "--accuracy"]) == 1
    assert "pip install mlcommons-loadgen" in capsys.readouterr().err
    assert served == []
