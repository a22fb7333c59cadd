"""Stored runs: if these fail, figures mix machines or nights, or show last week's run."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers.synthetic_run import TORCHSERVE, build
from infscale.errors import DataError
from infscale.records import runs, samples


def change(file: Path, **values: object) -> None:
    """Change fields of a stored manifest."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return build(
        tmp_path / "data" / "raw", {(TORCHSERVE, "rest"): 100.0, (TORCHSERVE, "grpc"): 100.0}, grid=(0.5,), lifetimes=1
    )


def test_trials_of_two_machines_are_not_pooled(small: Path) -> None:
    """The mean over a laptop and a server is about neither."""
    for i, file in enumerate(sorted((small / "trials").glob("*.json"))):
        change(file, machine_digest=f"m{i}")
    with pytest.raises(DataError, match=r"2 machines \(m0, m1\) must not be pooled"):
        runs.load_run(small)


def test_trials_of_another_run_are_not_pooled(small: Path) -> None:
    """Copied into one folder, two nights would look like one with more lifetimes."""
    file = next((small / "trials").glob("*.json"))
    change(file, run_id="another")
    with pytest.raises(DataError, match="belongs to the run another"):
        runs.load_run(small)


def test_an_unknown_schema_version_is_named(small: Path) -> None:
    """Read with other rules, columns mean other things."""
    change(small / "run.json", version=99)
    with pytest.raises(DataError, match=r"run.json: field version is 99; this program reads version \d"):
        runs.load_run(small)


def test_a_half_written_trial_of_an_interrupted_run_is_left_out(small: Path) -> None:
    """One killed write would make every finished trial of the night unreadable."""
    change(small / "run.json", status="interrupted")
    next((small / "trials").glob("*.json")).unlink()
    with pytest.warns(UserWarning, match="interrupted while writing"):
        assert len(runs.load_run(small).trials) == 1


def test_a_complete_run_that_lacks_a_file_is_an_error(small: Path) -> None:
    """Silently fewer lifetimes, and nobody would know."""
    file = next((small / "trials").glob("*.json"))
    file.unlink()
    with pytest.raises(DataError, match=file.stem):
        runs.load_run(small)


@pytest.mark.parametrize("change_of", ["half of its rows", "each row twice", "its last row missing"])
def test_rows_that_are_not_those_that_were_measured_are_an_error(small: Path, change_of: str) -> None:
    """Half of a trial's rows had half of its rate, and a verdict of VALID."""
    trial = runs.load_run(small).trials[0]
    rows = trial.samples()
    changed = {
        "half of its rows": rows.iloc[: len(rows) // 2],
        "each row twice": pd.concat([rows, rows], ignore_index=True),
        "its last row missing": rows.iloc[:-1],
    }[change_of]
    samples.write(trial.path, changed)
    with pytest.raises(DataError, match=rf"has {len(changed)} rows; the trial .* has {len(rows)}"):
        runs.load_run(small).trials[0].samples()


def test_the_newest_complete_run_is_found(small: Path, tmp_path: Path) -> None:
    """Figures would silently show last week's run, or half of tonight's."""
    newer, running = small.with_name("newer"), small.with_name("running")
    for copy, changes in ((newer, {"started_at": "2027"}), (running, {"started_at": "2028", "status": "interrupted"})):
        shutil.copytree(small, copy)
        change(copy / "run.json", **changes)
    assert runs.find_run(root=tmp_path) == newer
    assert runs.find_run("data/raw/running", root=tmp_path) == running


def test_a_complete_run_of_which_a_trial_cannot_be_read_is_passed_over_with_a_warning(small: Path) -> None:
    """It ended the figures of every other finding."""
    newer = small.with_name("newer")
    shutil.copytree(small, newer)
    change(newer / "run.json", started_at="2027")
    next((newer / "trials").glob("*.json")).write_bytes(b'{"version": 3, "trial_id": "\xff"}')
    with pytest.warns(UserWarning, match=r"passed over: .*newer"):
        assert [run.folder for run in runs.complete_runs(small.parent)[runs.HEADLINE]] == [small]


def test_paths_begin_at_the_projects_root_also_in_the_folder_of_notebooks(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JupyterLab's kernels work there, and run="data/raw/…" was not found."""
    (tmp_path / "lib" / "infscale").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    given = f"data/raw/{small.name}"
    assert runs.find_run(given) == runs.load_run(given).folder == runs.load_run(Path(given)).folder == small
    assert runs.newest(Path("data/raw"), runs.HEADLINE) == small
    assert [run.folder for run in runs.complete_runs("data/raw")[runs.HEADLINE]] == [small]


def test_the_sample_is_taken_when_nothing_was_measured(small: Path, tmp_path: Path) -> None:
    """A fresh clone has no raw data: `make figures` must work there."""
    shutil.move(tmp_path / "data" / "raw", tmp_path / "data" / "sample")
    assert runs.find_run(root=tmp_path) == tmp_path / "data" / "sample" / small.name


def test_no_run_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """A FileNotFoundError of a path that nobody typed helps nobody."""
    with pytest.raises(DataError, match="measure one with 'make paper', or give the folder of an interrupted run"):
        runs.find_run(root=tmp_path)
    with pytest.raises(DataError, match="measure one with 'make finding F=caching'"):
        runs.find_run(root=tmp_path, finding="caching")
    with pytest.raises(DataError, match=r"is not a run: it has no run\.json; accepted: the folder of a run"):
        runs.find_run("data/raw/typo", root=tmp_path)
