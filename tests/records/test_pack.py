"""If these fail, packing loses what was measured, or a packed run that was damaged is read as a sound one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers.synthetic_run import build
from helpers.virtual_lab import readings
from infscale.errors import DataError
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Verdict
from infscale.records.manifest import GroupUsage, Phase
from infscale.records.pack import pack, pack_copy, unpack
from infscale.records.runs import Run, load_run


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete run of eight trials that is not packed; two of them have readings of processes."""
    folder = build(tmp_path_factory.mktemp("runs"), lifetimes=1, duration_s=0.3, grid=(0.3, 0.6))
    for n, trial in enumerate(load_run(folder).trials[1:3], 5):
        path = folder / "trials" / trial.manifest.trial_id
        readings(n).to_parquet(path.with_name(f"{path.name}.usage.parquet"), index=False)
        trial.manifest.usage = {"server": GroupUsage(seconds=0.3, cores=0.5)}
        manifests.write(path.with_name(f"{path.name}.json"), trial.manifest)
    (folder / "logs").mkdir()
    (folder / "logs" / "server.log").write_text("started\n")
    return folder


@pytest.fixture
def folder(loose: Path, tmp_path: Path) -> Path:
    """Return a copy of the loose run."""
    return Path(shutil.copytree(loose, tmp_path / "raw" / loose.name))


def assert_equal(one: Run, other: Run) -> None:
    """Compare everything that is read of two runs but whether they are packed."""
    first, second = (msgspec.structs.replace(run.manifest, packed=False) for run in (one, other))
    assert first == second
    assert [trial.manifest for trial in one.trials] == [trial.manifest for trial in other.trials]
    for mine, theirs in zip(one.trials, other.trials, strict=True):
        pd.testing.assert_frame_equal(mine.samples(), theirs.samples(), check_categorical=False)
        pd.testing.assert_frame_equal(mine.usage(), theirs.usage(), check_categorical=False)


def files(folder: Path) -> set[str]:
    """Return the names of a run's files and folders."""
    return {path.name for path in folder.iterdir()}


def test_a_packed_run_reads_as_the_same_run(loose: Path, folder: Path) -> None:
    pack(folder)
    assert files(folder) == {"run.json", "trials.parquet", "samples.parquet", "usage.parquet", "logs"}
    assert_equal(load_run(folder), load_run(loose))
    for trial in load_run(folder).trials:
        columns = ["done_ns", "status"]
        pd.testing.assert_frame_equal(trial.samples(columns), trial.samples()[columns])


def test_a_run_without_readings_has_no_file_of_them(folder: Path) -> None:
    for path in (folder / "trials").glob("*.usage.parquet"):
        path.unlink()
    before = load_run(folder)
    for trial in before.trials:
        trial.manifest.usage = {}
        manifests.write(folder / "trials" / f"{trial.manifest.trial_id}.json", trial.manifest)
    whole = [trial.samples() for trial in before.trials]
    pack(folder)
    assert files(folder) == {"run.json", "trials.parquet", "samples.parquet", "logs"}
    after = load_run(folder)
    assert [len(trial.samples()) for trial in after.trials] == [len(rows) for rows in whole]
    assert all(trial.usage().empty for trial in after.trials)


def test_a_trial_without_rows_keeps_its_place(folder: Path) -> None:
    """Else the rows of every trial after it would be those of its neighbour."""
    (first, *_) = load_run(folder).trials
    samples.write(first.path, first.samples().iloc[:0])
    first.manifest.rows = 0
    manifests.write(folder / "trials" / f"{first.manifest.trial_id}.json", first.manifest)
    before = load_run(folder)
    counts = [len(trial.samples()) for trial in before.trials]
    pack(folder)
    assert [len(trial.samples()) for trial in load_run(folder).trials] == counts


def test_packing_twice_changes_nothing(folder: Path) -> None:
    pack(folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    pack(folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("done", [False, True])
def test_whenever_packing_is_interrupted_the_run_reads_as_before(
    step: int, done: bool, loose: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night's run must survive that the machine is switched off in the morning."""
    calls: list[str] = []

    def killing(name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> None:
            calls.append(name)
            if len(calls) <= step:
                really(*args)
            elif len(calls) == step + 1:
                if done:
                    really(*args)
                raise Killed
            else:
                raise AssertionError("nothing may be done after the end")

        return call

    def half(path: Path) -> None:
        for file in sorted(path.iterdir())[::2]:
            file.unlink()

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", killing("replace", __import__("os").replace))
        patched.setattr("shutil.rmtree", killing("rmtree", half))
        with pytest.raises(Killed):
            pack(folder)
    assert calls == ["replace", "replace", "replace", "replace", "rmtree"][: step + 1]
    assert not [name for name in files(folder) if name.startswith(".")], "a half-written file was left"
    assert_equal(load_run(folder), load_run(loose))
    pack(folder)
    assert files(folder) == {"run.json", "trials.parquet", "samples.parquet", "usage.parquet", "logs"}
    assert_equal(load_run(folder), load_run(loose))


def test_an_unpacked_run_is_as_it_was_before_it_was_packed(loose: Path, folder: Path) -> None:
    """It is measured further: what is added to must be what was measured."""
    before = {path.name for path in (folder / "trials").iterdir()}
    pack(folder)
    unpack(folder)
    assert files(folder) == {"run.json", "trials", "logs"}
    assert {path.name for path in (folder / "trials").iterdir()} == before
    run = load_run(folder)
    assert (run.manifest.status, run.manifest.packed) == ("interrupted", False)
    run.manifest.status = "complete"
    assert_equal(run, load_run(loose))
    manifests.write(folder / "run.json", run.manifest)
    pack(folder)
    assert_equal(load_run(folder), load_run(loose))


def test_what_is_not_packed_stays_as_it_is_when_it_is_unpacked(loose: Path, folder: Path) -> None:
    unpack(folder)
    assert files(folder) == {"run.json", "trials", "logs"}
    assert load_run(folder).manifest == load_run(loose).manifest


@pytest.mark.parametrize("step", [0, 3, 17, 32, 34, 35, 36])
def test_whenever_unpacking_is_interrupted_the_run_reads_as_before(
    step: int, loose: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that was to be added must not cost the nights before."""
    pack(folder)
    calls: list[str] = []

    def killing(name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            calls.append(name)
            if len(calls) > step:
                raise Killed
            return really(*args, **more)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(manifests, "write", killing("manifest", manifests.write))
        patched.setattr(samples, "write", killing("rows", samples.write))
        patched.setattr(Path, "unlink", killing("unlink", Path.unlink))
        with pytest.raises(Killed):
            unpack(folder)
    for again in range(2):
        run = load_run(folder)
        run.manifest.status = "complete"
        assert_equal(run, load_run(loose))
        if not again:
            unpack(folder)


def test_a_packed_run_is_no_larger(loose: Path, folder: Path) -> None:
    """Committed samples have a budget."""
    sizes = [sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) for place in (loose, folder)]
    assert sizes[0] == sizes[1]
    pack(folder)
    packed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert packed < sizes[0]


def test_an_interrupted_run_is_not_packed(folder: Path, tmp_path: Path) -> None:
    """It is continued, which needs a file of each trial."""
    manifest = load_run(folder).manifest
    manifest.status = "interrupted"
    manifests.write(folder / "run.json", manifest)
    before = files(folder)
    with pytest.raises(DataError, match="is not complete: only complete runs are packed"):
        pack(folder)
    with pytest.raises(DataError, match="is not complete: only complete runs are packed"):
        pack_copy(folder, tmp_path / "sample")
    assert files(folder) == before


def test_other_programs_find_factors_sizes_and_rows(folder: Path) -> None:
    """The stored data must be of use without this program."""
    pack(folder)
    trials = pd.read_parquet(folder / "trials.parquet")
    rows = pd.read_parquet(folder / "samples.parquet")
    assert set(trials["protocol"]) == {"rest", "grpc"}
    assert set(trials["framework"]) == {"tfserving", "torchserve"}
    assert set(trials["verdict"]) <= {VALID, UNSTEADY, SATURATED, INVALID}
    assert {"rate_per_s", "lifetime", "arm_number", "block", "batch", "connections"} <= set(trials.columns)
    assert rows.groupby("trial_id", observed=True).size().to_dict() == trials.set_index("trial_id")["rows"].to_dict()
    assert set(pd.read_parquet(folder / "usage.parquet")["trial_id"]) < set(trials["trial_id"])


# ------------------------------------------------------------------------------------------- damaged afterwards


@pytest.mark.parametrize("name", ["samples.parquet", "trials.parquet", "usage.parquet"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), r"cannot be read as Parquet \(truncated\?\)"),
    ],
)
def test_a_file_that_is_lacking_or_cut_off_is_named(
    name: str, damage: Callable[[Path], None], message: str, folder: Path
) -> None:
    pack(folder)
    damage(folder / name)
    with pytest.raises(DataError, match=message) as caught:
        load_run(folder)
    assert str(folder / name) in str(caught.value)


def test_samples_of_fewer_trials_are_refused(folder: Path) -> None:
    """Read by their places, every later trial would get the rows of another."""
    pack(folder)
    path = folder / "samples.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(k) for k in range(file.num_row_groups)]
    for kept, message in ((groups[:-1], "has rows of 7 trials; .* has 8 trials"), (groups[::-1], "row group 0 has")):
        with pq.ParquetWriter(path, groups[0].schema) as writer:
            for group in kept:
                writer.write_table(group)
        with pytest.raises(DataError, match=message):
            load_run(folder)


def test_a_table_without_manifests_is_refused(folder: Path) -> None:
    pack(folder)
    path = folder / "trials.parquet"
    table = pd.read_parquet(path)
    table.drop(columns="manifest").to_parquet(path)
    with pytest.raises(DataError, match="lacks the columns manifest"):
        load_run(folder)
    table.assign(manifest=2).to_parquet(path)
    with pytest.raises(DataError, match="row 0: column manifest: expected text, got int"):
        load_run(folder)


# ---------------------------------------------------------------------------------------------- a sample is made


@pytest.mark.parametrize("first", [lambda folder: None, pack])
def test_a_sample_is_a_packed_copy_without_logs(first: Callable[[Path], None], folder: Path, tmp_path: Path) -> None:
    """The run that was measured stays as it is."""
    first(folder)
    before = files(folder)
    copy = pack_copy(folder, tmp_path / "sample")
    assert copy == tmp_path / "sample" / folder.name
    assert files(copy) == {"run.json", "trials.parquet", "samples.parquet", "usage.parquet"}
    assert files(folder) == before
    assert_equal(load_run(copy), load_run(folder))
    with pytest.raises(DataError, match="exists already"):
        pack_copy(folder, tmp_path / "sample")


def test_what_is_no_run_makes_no_sample(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run: it has no run"):
        pack_copy(tmp_path / "none", tmp_path / "sample")
    assert not (tmp_path / "sample").exists()


def test_a_small_sample_of_a_search_holds_what_tables_need(folder: Path, tmp_path: Path) -> None:
    """A committed run of a finding has a budget of 5 MB; its tables must be those of the whole run."""
    run = load_run(folder)
    phases: tuple[Phase, ...] = ("pilot", "search", "search", "grid", "grid", "grid")
    kept = dict(zip((trial.manifest.trial_id for trial in run.trials), phases, strict=False))
    for number, trial in enumerate(run.trials):
        trial.manifest.phase = kept.get(trial.manifest.trial_id, "grid")
        name = "INVALID" if number in (1, 4) else "VALID"
        trial.manifest.verdict = Verdict(name, (), (), {})
        trial.manifest.usage = {"server": GroupUsage(seconds=0.3, cores=0.5)}
        path = folder / "trials" / trial.manifest.trial_id
        manifests.write(path.with_name(f"{path.name}.json"), trial.manifest)
        readings(number + 2).to_parquet(path.with_name(f"{path.name}.usage.parquet"), index=False)
    small = load_run(pack_copy(folder, tmp_path / "sample", small=True))
    ids = [trial.manifest.trial_id for trial in run.trials]
    assert {trial.manifest.trial_id for trial in small.trials} == set(ids) - {ids[0], ids[1]}
    with_readings = {trial.manifest.trial_id for trial in small.trials if not trial.usage().empty}
    assert with_readings == set(ids) - {ids[0], ids[1], ids[2], ids[4]}
    whole = {trial.manifest.trial_id: trial for trial in load_run(folder).trials}
    for trial in small.trials:
        rows, all_rows = trial.samples(), whole[trial.manifest.trial_id].samples()
        if trial.manifest.phase == "search":
            assert rows.empty
        else:
            pd.testing.assert_frame_equal(rows, all_rows, check_categorical=False)
    assert len(load_run(pack_copy(folder, tmp_path / "whole")).trials) == len(run.trials)


def test_a_small_sample_without_any_readings_can_be_read(folder: Path, tmp_path: Path) -> None:
    run = load_run(folder)
    for trial in run.trials:
        trial.manifest.verdict = Verdict("INVALID", (), (), {})
        manifests.write(folder / "trials" / f"{trial.manifest.trial_id}.json", trial.manifest)
    small = load_run(pack_copy(folder, tmp_path / "sample", small=True))
    assert len(small.trials) == len(run.trials)
    assert all(trial.usage().empty for trial in small.trials)
