"""If these fail, a script that reads ``--json`` gets other keys than yesterday, or something that is no JSON; or what a
user copies from a help ends in an error."""

import json
import math
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pandas as pd
import pytest

from helpers.project import ROOT
from helpers.synthetic_run import GRPC_FASTER, TORCHSERVE, build
from infscale import cli
from infscale.analysis.tables import tabulate
from infscale.cli import (
    audit,
    capacity,
    compare,
    compare_report,
    figures,
    load,
    load_report,
    options,
    printed,
    schemas,
)
from infscale.errors import one_of
from infscale.records.runs import load_run
from infscale.report import listing
from infscale.report.results import FindingResult, result_file, result_of

COMMANDS = [*(name for commands in cli.SECTIONS.values() for name in commands), "plan capacity"]
WITHOUT = {"serve", "locust", "completion", "schema", "export"}
"""Commands that print no table: they hold a server open, or print a text that another program reads."""
QUICK = re.compile(
    r"infscale (doctor.*|runs.*|show data/sample/\S+|completion .*|schema( load)?|export data/sample/\S+184202-quick|"
    r"(\S+ )?--(help|version))"
)
"""Examples that take seconds, and need no server and no file of the user's."""


def command_of(name: str) -> options.Command:
    found: Any = cli.APP
    for part in name.split():
        found = found.get_command(None, part)
    assert isinstance(found, options.Command)
    return found


def examples() -> Iterator[tuple[str, str]]:
    """Every example, as the help of its command prints it; of the whole program too."""
    for name in ("", *COMMANDS):
        context = (cli.APP if not name else command_of(name)).make_context("infscale", [], resilient_parsing=True)
        printed_help = context.command.get_help(context).partition("Examples:\n")[2]
        assert printed_help, name
        for line in printed_help.replace("\\\n", " ").splitlines():
            yield name, line.strip()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of one serving system, of which REST ÷ gRPC is decided."""
    one = {arm: rate for arm, rate in GRPC_FASTER.items() if arm[0] == TORCHSERVE}
    return build(tmp_path_factory.mktemp("raw"), one, duration_s=1.0, grid=(0.3, 0.45, 0.7))


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived tables do not go to the project's folder."""
    monkeypatch.setattr(listing, "derived", lambda run_id: tmp_path / "derived" / run_id)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a command with ``--json``; return the object that it prints, which must be of its schema."""

    def run(name: str, *words: str, kind: str = "", code: int = 0) -> dict[str, Any]:
        assert cli.main([*name.split(), *words, "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        jsonschema.validate(found, schemas.schema(kind or name.replace(" ", "-")))
        assert isinstance(found, dict)
        return found

    return run


# ----------------------------------------------------------------------------------------------- the helps


@pytest.mark.parametrize(("name", "line"), list(examples()))
def test_an_example_of_a_help_works(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The quick ones are run, from the project's root as its README says; of the others the options are understood."""
    program, *words = shlex.split(line)
    assert program == "infscale"
    if QUICK.fullmatch(line):
        assert cli.main(words) == 0
        assert capsys.readouterr().out
        return
    called = words[: len(name.split())] if name else words[:1]
    command_of(" ".join(called)).make_context(line, words[len(called) :])


RETURNED: dict[str, tuple[int, ...]] = {
    "load": (load.GENERATOR_FAILED, load.NOTHING_SUCCEEDED, load.NOT_STORED, load.INTERRUPTED),
    "capacity": (capacity.GENERATOR_FAILED, capacity.NO_BRACKET),
    "compare": tuple(compare.CODES.values()),
    "audit": (audit.UNDECIDED, audit.FAILED),
}
"""What commands return beside 0, 1 and 2."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_names_every_exit_code_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that does not know what 3 means takes "undecided" for an error."""
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out.partition("Exit codes:\n")[2].partition("\nExamples:")[0]
    codes = {int(code) for code in re.findall(r"^  (\d+) ", shown, re.MULTILINE)}
    assert codes >= {0, 1, 2, *RETURNED.get(name, ())}


def test_every_command_that_prints_a_table_prints_it_as_json_too() -> None:
    lacking = {name for name in COMMANDS if "--json" not in {o for p in command_of(name).params for o in p.opts}}
    assert lacking == WITHOUT


# -------------------------------------------------------------------------------------------- what is printed


def test_doctor(said: Callable[..., dict[str, Any]]) -> None:
    found = said("doctor")
    assert found["ready"] is (not found["missing"])
    assert {one["name"] for one in found["checks"]} >= {"system", "CPU", "Envoy"}


def test_runs_and_show(stored: Path, said: Callable[..., dict[str, Any]]) -> None:
    tables, run = tabulate(load_run(stored)), load_run(stored)
    (listed,) = said("runs", "--data", str(stored.parent))["runs"]
    assert (listed["run"], listed["trials"]) == (run.id, len(run.trials))
    shown = said("show", str(stored))
    for name, table in (("arms", tables.arms), ("contrasts", tables.contrasts)):
        assert len(shown[name]) == len(table)
        assert set(shown[name][0]) >= set(table.columns), "a column of the table has no key"
    assert shown["contrasts"][0]["answer"] == tables.contrasts["answer"].iloc[0]
    assert shown["arms"][0]["rate_mbit"] is None, "a level that is not set is null"


def test_plan(stored: Path, said: Callable[..., dict[str, Any]]) -> None:
    found = said("plan", "--budget", "45m", "--frameworks", "torchserve", "--run", str(stored))
    assert found["budget_s"] == 2700
    assert {one["metric"] for one in found["power"]} <= {one["metric"] for one in found["contrasts"]}
    assert stored.name in found["power_from"]
    assert found["arms"] == [arm for group in found["groups"] for arm in group["arms"]]
    assert cli.main(["plan", "--effect", "1", "--json"]) == 1, "no difference"


def test_compare_gives_the_ratios_as_numbers(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(stored)
    tables = tabulate(run)
    comparison = compare_report.of_endpoints(run, tables, ["REST", "gRPC"], {"response_p95_ms": 1.05} | MORE, 60.0)
    text = printed.text(compare_report.record(comparison))
    found = json.loads(text)
    jsonschema.validate(found, schemas.schema("compare"))
    for one, (_, row) in zip(found["cases"], tables.contrasts.iterrows(), strict=True):
        assert one["metric"] == row["metric"]
        numbers = [row[name] for name in ("ratio", "ratio_low", "ratio_high")]
        assert [one["ratio"], one["ratio_low"], one["ratio_high"]] == [x if math.isfinite(x) else None for x in numbers]
    assert found["cases"][0]["ratio"] > 1
    assert {one["metric"]: one["limit"] for one in found["cases"]} == {
        "response_p95_ms": 1.05,
        "saturation_per_s": pytest.approx(1 / 1.2),
    }
    assert cli.main(["compare", str(stored), str(stored), "--json"]) == 2
    assert capsys.readouterr().out == "", "an error is no result"


MORE = {"saturation_per_s": 1.2}


def test_audit_prints_its_progress_elsewhere(
    monkeypatch: pytest.MonkeyPatch, said: Callable[..., dict[str, Any]]
) -> None:
    """A line between the numbers, and no program can read them."""

    class Served:
        label = "a server"

    def rounds(*_: object, say: Callable[[str], None], **__: object) -> pd.DataFrame:
        say("round 1 of 4")
        kinds = {"fresh": 2.0, "repeated": 1.0}
        rows = [{"round": k, "kind": kind, "p50_ms": ms + 0.01 * k} for k in range(4) for kind, ms in kinds.items()]
        return pd.DataFrame(rows).assign(hits=float("nan"), misses=float("nan"))

    monkeypatch.setattr(audit, "_served", lambda *_: __import__("contextlib").nullcontext(Served()))
    monkeypatch.setattr("infscale.experiment.beside.audit.rounds", rounds)
    found = said("audit", "tfserving", "--protocols", "rest", "--seed", "7", code=audit.FAILED)
    (one,) = found["caching"]
    assert (one["answer"], one["passed"], one["hit_ratio_fresh"], found["accuracy"]) == ("differs", False, None, [])


def test_advice(monkeypatch: pytest.MonkeyPatch, said: Callable[..., dict[str, Any]]) -> None:
    row = {"choice": "protocol", "advice": "gRPC", "evidence": "e", "why": "a\nb", "run_ids": "r1, r2"}
    monkeypatch.setattr("infscale.findings.stored_runs", lambda _: [])
    monkeypatch.setattr("infscale.report.advice.advise", lambda *_: pd.DataFrame([row]))
    (one,) = said("advice")["choices"]
    assert (one["why"], one["runs"]) == (["a", "b"], ["r1", "r2"])


def test_figures_print_the_findings_result(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(figures, "draw", lambda *_: print("drawing"))
    found = said("figures", "--run", str(stored), kind="finding")
    assert msgspec.convert(found, FindingResult).run_id == load_run(stored).id
    other = msgspec.structs.replace(
        load_run(stored).manifest, design=msgspec.structs.replace(load_run(stored).manifest.design, finding="mine")
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(msgspec.json.encode(other))
    assert cli.main(["figures", "--run", str(tmp_path / "run"), "--figures", str(tmp_path), "--json"]) == 1, "not drawn"
    from infscale.findings import finding_of

    run = load_run(stored)
    drawn = msgspec.structs.replace(result_of(finding_of(run), run, tabulate(run)), name="mine")
    result_file(tmp_path, "mine").write_bytes(msgspec.json.encode(drawn))
    assert said("figures", "--run", str(tmp_path / "run"), "--figures", str(tmp_path), kind="finding")["name"] == "mine"


def test_a_number_that_is_unknown_or_infinite_is_null() -> None:
    """JSON has neither: a reader that takes NaN would be the exception."""
    case = printed.Case(
        name="p95",
        metric="m",
        judgement="worse",
        ratio=float("nan"),
        ratio_low=0.0,
        ratio_high=float("inf"),
        margin="at most 1.05",
        limit=1.05,
        sentence="s",
    )
    found = json.loads(printed.text(case), parse_constant=lambda _: pytest.fail("no JSON"))
    assert (found["ratio"], found["ratio_high"]) == (None, None)


# ------------------------------------------------------------------------------------------------- the schemas


@pytest.mark.parametrize("name", sorted(schemas.kinds()))
def test_the_published_schemas_are_those_of_this_program(name: str) -> None:
    """Who validates by yesterday's file takes today's results for damaged."""
    file = ROOT / "docs" / "schema" / f"{name}.schema.json"
    how = "write them anew with: infscale schema --into docs/schema (and say in CHANGELOG.md what changed)"
    assert (file.read_bytes() if file.is_file() else b"") == schemas.encoded(name), how
    jsonschema.Draft202012Validator.check_schema(schemas.schema(name))


def test_no_schema_is_left_of_what_is_no_more() -> None:
    there = {file.name.removesuffix(".schema.json") for file in (ROOT / "docs" / "schema").iterdir()}
    assert there == set(schemas.kinds())


@pytest.mark.parametrize("folder", sorted((ROOT / "data" / "sample").iterdir()), ids=lambda path: path.name)
def test_a_stored_sample_is_valid_by_the_published_schemas(folder: Path) -> None:
    """What others read by these files is what lies in the repository."""
    place = ROOT / "docs" / "schema"
    run_schema, trial_schema = (
        jsonschema.Draft202012Validator(json.loads((place / f"manifest-{name}.schema.json").read_text()))
        for name in ("run", "trial")
    )
    run_schema.validate(json.loads((folder / "run.json").read_text()))
    texts = pd.read_parquet(folder / "trials.parquet", columns=["manifest"])["manifest"]
    for text in texts.iloc[:: max(1, len(texts) // 20)]:
        trial_schema.validate(json.loads(text))


def test_what_is_no_manifest_is_invalid() -> None:
    """A schema that takes anything would say nothing."""
    whole = json.loads(next((ROOT / "data" / "sample").glob("*/run.json")).read_text())
    for broken in (
        {**whole, "status": "done"},
        {**whole, "more": 1},
        {k: v for k, v in whole.items() if k != "design"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schemas.schema("manifest-run"))


def test_schemas_are_listed_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    listed = capsys.readouterr().out
    assert [name for name in schemas.kinds() if f"{name} " not in listed] == []
    assert cli.main(["schema", "load"]) == 0
    assert json.loads(capsys.readouterr().out)["$id"].endswith(":load")
    assert cli.main(["schema", "--into", str(tmp_path / "new")]) == 0
    assert len(list((tmp_path / "new").iterdir())) == len(schemas.kinds())
    assert cli.main(["schema", "lod"]) == 1
    assert "schema='lod' is not known; accepted: advice" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert cli.main(["schema", "--into", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_result_of_a_load_has_every_key_that_its_summary_has() -> None:
    """A number that is computed and has no key in the record is an error, not a silent loss."""
    assert load_report.LoadResult.__struct_config__.forbid_unknown_fields
    assert one_of("key", "gap_p99_9_ms", load_report.LoadResult.__struct_fields__)
