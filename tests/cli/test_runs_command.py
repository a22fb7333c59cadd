"""If these fail, a researcher does not find a stored run again, or reads an answer that the run did not give."""

import json
from pathlib import Path

import pytest

from helpers.synthetic_run import GRPC_FASTER, build
from infscale.analysis.answers import UNDECIDED
from infscale.analysis.tables import tabulate
from infscale.cli import main
from infscale.records.runs import load_run
from infscale.report import beside, listing


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a complete run's folder; derived tables are kept beside the folder of runs."""
    monkeypatch.setattr(listing, "derived", lambda run_id: tmp_path / "derived" / run_id)
    return build(tmp_path / "raw", GRPC_FASTER, duration_s=1.0, grid=(0.3, 0.45, 0.7))


def test_runs_are_listed_with_their_answers_once_one_was_shown(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, place = load_run(stored), stored.parent
    (place / "damaged").mkdir()
    (place / "damaged" / "run.json").write_text("{")
    with pytest.warns(UserWarning, match="passed over"):
        assert main(["runs", "--data", str(place), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["run"], row["finding"], row["status"]) == (run.id, run.manifest.design.finding, run.manifest.status)
    assert row["trials"] == len(run.trials)
    assert row["decided"] == "", "nothing was computed yet, and nothing is claimed"

    assert main(["show", str(stored)]) == 0
    printed = capsys.readouterr().out
    answers = tabulate(run).contrasts["answer"]
    decided = f"{(answers != UNDECIDED).sum()} of {len(answers)}"
    assert f"Contrasts named before the run: {decided} decided" in printed
    assert "Synthetic CPU" in printed
    with pytest.warns(UserWarning, match="passed over"):
        assert main(["runs", "--data", str(place)]) == 0
    assert decided in capsys.readouterr().out


def test_a_shown_run_is_as_its_rows_are_also_after_more_was_measured(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kept tables of an earlier state would be yesterday's answer."""
    main(["show", str(stored), "--json"])
    first = json.loads(capsys.readouterr().out)
    kept = listing.derived(load_run(stored).id) / "contrasts.parquet"
    kept.write_bytes(b"half written")
    main(["show", str(stored), "--json"])
    assert json.loads(capsys.readouterr().out) == first
    stale = kept.stat().st_mtime
    (stored / "run.json").touch()
    main(["show", str(stored), "--json"])
    assert kept.stat().st_mtime > stale, "tables that are older than the run are made again"


def test_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err
    assert main(["runs", "--data", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_two_runs_stand_beside_each_other(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build(tmp_path / "other", GRPC_FASTER, duration_s=1.0, grid=(0.3, 0.45, 0.7), seed=2)
    tables = {folder: tabulate(load_run(folder)) for folder in (stored, other)}
    monkeypatch.setattr(beside, "stored_tables", lambda run: tables[run.folder])
    assert main(["show", str(stored), str(other), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    first, second = (one.contrasts["answer"] for one in tables.values())
    contrasts = [row for row in rows if "÷" in row["what"]]
    assert len(contrasts) == len(first) == len(second)
    for row, one, two in zip(contrasts, first, second, strict=True):
        assert row["first"].endswith(one)
        assert row["second"].endswith(two)
    assert any("λ*" in row["what"] for row in rows)
    assert main(["show", str(stored), str(other)]) == 0
    printed = capsys.readouterr().out
    assert f"1 {load_run(stored).id}, " in printed
    assert f"2 {load_run(other).id}, " in printed
    assert "2 ÷ 1" in printed

    itself = beside.compare_runs(stored, load_run(stored))
    assert set(itself["ratio"]) <= {"1", ""}, "a run is nowhere apart from itself"
    assert (itself["first"] == itself["second"]).all()
