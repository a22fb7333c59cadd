"""If these fail, a damaged record is read as something that was never measured, or a sound one cannot be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.synthetic_run import build
from infscale.errors import DataError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design
from infscale.records import manifest as manifests
from infscale.records.manifest import LoadManifest, Record, RunManifest, TrialManifest
from infscale.records.pack import pack
from infscale.records.runs import load_run

# ------------------------------------------------------------------------------------ what was written is read

ARMS = (Arm("rest", framework="triton", options=(("a", 1), ("b", True))), Arm("grpc", framework="triton"))
DESIGN = Design(finding="test", arms=ARMS, contrasts=(Contrast(0, 1),), budget_s=60.0)
FIXED: dict[type, st.SearchStrategy[Any]] = {
    Arm: st.sampled_from(ARMS),
    Design: st.just(DESIGN),
    str: st.text(max_size=5),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
    object: st.none() | st.text(max_size=5) | st.lists(st.integers(0, 9), max_size=2),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the type of a record's field."""
    if kind in FIXED:
        return FIXED[kind]
    origin, args = get_origin(kind), get_args(kind)
    if origin is None:
        fields = {name: values(hint) for name, hint in get_type_hints(kind).items() if (name, hint) != ("version", int)}
        return st.fixed_dictionaries(fields).map(lambda drawn: kind(**drawn))
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (UnionType, Union):
        return st.one_of(*map(values, args))
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if origin is list:
        return st.lists(values(args[0]), max_size=2)
    if args[-1] is ...:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    return st.tuples(*map(values, args))


RECORDS: dict[type[Record], st.SearchStrategy[Any]] = {
    kind: values(kind) for kind in (RunManifest, TrialManifest, LoadManifest)
}


@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_record_is_read_as_it_was_written(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(RECORDS[kind])
    assert manifests.decode(msgspec.json.encode(record), kind, "a test") == record


def test_a_written_record_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    run = load_run(build(tmp_path, lifetimes=1, duration_s=0.2, grid=(0.3,)))
    before = sorted(run.folder.iterdir())
    run.manifest.commit = "another"
    manifests.write(run.folder / "run.json", run.manifest)
    assert manifests.read(run.folder / "run.json", RunManifest) == run.manifest
    assert sorted(run.folder.iterdir()) == before


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(build(tmp_path, lifetimes=1, duration_s=0.2, grid=(0.3,)))
    before = {path: path.read_bytes() for path in run.folder.glob("*.json")}

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        manifests.write(run.folder / "run.json", run.manifest)
    assert {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


# ----------------------------------------------------------------------------------- what cannot be read is named


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small complete run, not packed."""
    return build(tmp_path_factory.mktemp("runs"), lifetimes=1, duration_s=0.2, grid=(0.3,))


Text = dict[str, Any]
"""A record as JSON holds it."""


def changed(text: str, change: Callable[[Text], object]) -> str:
    """Return a record's JSON with one change."""
    value = json.loads(text)
    change(value)
    return json.dumps(value)


OF_A_TRIAL: dict[str, Callable[[Text], object]] = {
    r"field version is 2; this program reads version 3": lambda m: m.update(version=2),
    r"field version is missing; this program reads version 3": lambda m: m.pop("version"),
    r"field version: Expected `int \| null`, got `str`": lambda m: m.update(version="two"),
    r"missing required field `rate_per_s`": lambda m: m.pop("rate_per_s"),
    r"unknown field `colour`": lambda m: m.update(colour="red"),
    r"field rate_per_s: Expected `float`, got `str`": lambda m: m.update(rate_per_s="fast"),
    r"field rate_per_s: Expected `float`, got `null`": lambda m: m.update(rate_per_s=None),
    r"field generator.cpu_s: Expected `float`, got `array`": lambda m: m["generator"].update(cpu_s=[]),
    r"field generator: Object missing required field `wall_s`": lambda m: m["generator"].pop("wall_s"),
    r"field host: Object contains unknown field `colour`": lambda m: m["host"].update(colour="red"),
    r"field phase: Invalid enum value 'dream'": lambda m: m.update(phase="dream"),
    r"field arm: protocol='soap' is not known; accepted: grpc, rest": lambda m: m["arm"].update(protocol="soap"),
    r"field verdict.gates\[0\].passed: Expected `bool`, got `str`": lambda m: m["verdict"]["gates"][0].update(
        passed="no"
    ),
}


@pytest.mark.parametrize("message", OF_A_TRIAL)
def test_a_trials_field_that_is_wrong_is_named_with_its_file(message: str, sound: Path) -> None:
    """A reader who does not learn which file and field it is can only measure anew."""
    path = sorted((sound / "trials").glob("*.json"))[0]
    text = path.read_text()
    try:
        path.write_text(changed(text, OF_A_TRIAL[message]))
        with pytest.raises(DataError, match=message) as caught:
            load_run(sound)
        assert str(path) in str(caught.value)
    finally:
        path.write_text(text)


@pytest.mark.parametrize("message", OF_A_TRIAL)
def test_so_is_one_of_a_packed_trial_with_its_row(message: str, sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / sound.name))
    pack(folder)
    path = folder / "trials.parquet"
    table = pq.read_table(path)
    texts = table["manifest"].to_pylist()
    texts[2] = changed(texts[2], OF_A_TRIAL[message])
    place = table.column_names.index("manifest")
    pq.write_table(table.set_column(place, "manifest", pa.array(texts)), path)
    with pytest.raises(DataError, match=message) as caught:
        load_run(folder)
    assert f"{path}, row 2:" in str(caught.value)


OF_A_RUN: dict[str, Callable[[Text], object]] = {
    r"field version is 2; this program reads version 3": lambda m: m.update(version=2),
    r"missing required field `design`": lambda m: m.pop("design"),
    r"field design.arms\[1\].batch: Expected `int`, got `str`": lambda m: m["design"]["arms"][1].update(batch="4"),
    r"field design: least=0 is too few; accepted: 1 or more": lambda m: m["design"].update(least=0),
    r"field lifetimes\[0\]: Object missing required field `number`": lambda m: m["lifetimes"][0].pop("number"),
    r"a key of field brackets\[...\]: Expected `int`, got `str`": lambda m: m.update(brackets={"0": {"one": [1, 2]}}),
    r"field design: contrasts: .* does not name two of 4 arms": lambda m: m["design"]["contrasts"][0].update(arm=9),
    r"field status: Invalid enum value 'done'": lambda m: m.update(status="done"),
    r"a key of field pilot: Expected `int`, got `str`": lambda m: m["pilot"].update(rest=m["pilot"]["0"]),
    r"field machine.cores: Expected `int`, got `null`": lambda m: m["machine"].update(cores=None),
}


@pytest.mark.parametrize("message", OF_A_RUN)
def test_a_runs_field_that_is_wrong_is_named_with_its_file(message: str, sound: Path) -> None:
    path = sound / "run.json"
    text = path.read_text()
    try:
        path.write_text(changed(text, OF_A_RUN[message]))
        with pytest.raises(DataError, match=message) as caught:
            load_run(sound)
        assert str(path) in str(caught.value)
    finally:
        path.write_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not valid JSON"),
        (b'{"version": 3, "run_id": "a', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b'{"version": 3, "run_id": "Z\xfcrich"}', "is not valid JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"2", "Expected `object`, got `int`"),
    ],
)
def test_what_is_no_record_at_all_is_named(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        load_run(tmp_path)
    assert str(path) in str(caught.value)


def test_a_record_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trial\.json does not exist"):
        manifests.read(tmp_path / "trial.json", TrialManifest)
    with pytest.raises(DataError, match="is not a run: it has no run"):
        load_run(tmp_path)
    (tmp_path / "run.json").mkdir()
    with pytest.raises(DataError, match=r"run\.json cannot be read: Is a directory"):
        manifests.read(tmp_path / "run.json", RunManifest)
