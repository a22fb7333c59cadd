"""If these fail, what one machine says is taken for what all machines would say."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from benchmarks.truth import machines as simulated
from scipy import stats

from helpers import synthetic_run
from infscale import cli
from infscale.analysis.merging.machines import POOLED, Source, check_mergeable, merge, table
from infscale.analysis.merging.pooled import MIN_MACHINES, estimate, pool
from infscale.cli.merge import read
from infscale.errors import ConfigError, DataError
from infscale.experiment.design.design import SATURATION
from infscale.machine import Machine
from infscale.records import manifest as manifests
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run, load_run
from infscale.report import merged as reports

CASES = 2000
LEAST, MOST = (float(stats.binom.ppf(end, CASES, 0.95)) / CASES for end in (0.005, 0.995))
"""The binomial 99 % band around 95 %."""
CPUS = {"lab": ("Intel(R) Xeon(R) CPU", 2), "cloud": ("AMD EPYC", 4), "arm": ("Ampere Altra", 8)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one design on each of three machines."""
    folder = tmp_path_factory.mktemp("machines")
    return {name: _measured(folder / name, *CPUS[name], seed) for seed, name in enumerate(CPUS)}


def _measured(folder: Path, cpu: str, cores: int, seed: int) -> Path:
    capacities = {(synthetic_run.TORCHSERVE, "rest"): 600.0, (synthetic_run.TORCHSERVE, "grpc"): 800.0}
    path = synthetic_run.build(folder, capacities, lifetimes=6, duration_s=1.0, grid=(0.3, 0.5, 1.5), seed=seed)
    machine = msgspec.structs.replace(synthetic_run.MACHINE, cpu=cpu, cores=cores)
    _change(path, machine=machine, run_id=f"{path.name}-{seed}")
    for file in (path / "trials").glob("*.json"):
        trial = manifests.read(file, manifests.TrialManifest)
        trial.machine_digest, trial.run_id = machine.digest(), f"{path.name}-{seed}"
        manifests.write(file, trial)
    return path


def _change(path: Path, **fields: object) -> None:
    manifest = manifests.read(path / "run.json", RunManifest)
    manifests.write(path / "run.json", msgspec.structs.replace(manifest, **fields))


def sources_of(runs: dict[str, Path], *names: str) -> list[Source]:
    return [Source(name, load_run(runs[name]), True) for name in names or runs]


def changed(source: Source, **fields: object) -> Source:
    """The same run with other fields of its manifest."""
    run = source.run
    return replace(source, run=Run(run.folder, msgspec.structs.replace(run.manifest, **fields), run.trials))


# --------------------------------------------------------------------------------------- the statistics


@pytest.mark.parametrize(("machines", "between"), [(3, 0.0), (5, 0.1), (8, 0.3)])
def test_intervals_hold_the_truth_whether_machines_differ_or_not(machines: int, between: float) -> None:
    """By simulation of the whole procedure: of a machine, of the mean over machines, of one more machine, of τ."""
    got = simulated.cell("normal", machines, between, CASES)
    assert got["pooled"] == 1
    assert {name: got[name] for name in ("mean", "spread") if not LEAST <= got[name] <= MOST} == {}
    assert got["own"] >= LEAST
    assert got["ahead"] >= LEAST - 0.01, "a machine measured for 4 lifetimes is less like the others than one for 8"


def test_a_machine_that_is_noisier_than_the_others_makes_no_interval_too_narrow() -> None:
    got = simulated.cell("one machine 3 times as noisy", 5, 0.1, CASES)
    assert got["mean"] >= LEAST


def test_the_pooled_value_is_the_mean_over_machines_by_student_t() -> None:
    """However many lifetimes one of them has: more of them say nothing of other machines."""
    logs = [np.array([0.1, 0.2, 0.15, 0.05] * 5), np.array([0.4, 0.5, 0.45, 0.6]), np.array([-0.1, 0.0, 0.1, 0.05])]
    both = pool([estimate(own) for own in logs])
    means = [own.mean() for own in logs]
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert both is not None
    assert both.ratio == pytest.approx(math.exp(np.mean(means)))
    assert (both.low, both.high) == pytest.approx(tuple(map(math.exp, expected)))
    assert both.next_low < both.low
    assert both.next_high > both.high
    assert both.between_low <= both.between <= both.between_high


def test_two_machines_are_not_pooled() -> None:
    """Of two, an interval says nothing; of one, it would be that machine's."""
    rng = np.random.default_rng(1)
    found = [estimate(rng.normal(0, 0.1, 5)) for _ in range(MIN_MACHINES)]
    assert pool(found) is not None
    assert pool(found[:2]) is None


@pytest.mark.parametrize(
    ("logs", "why"),
    [
        ([0.1, 0.2, 0.3], "3 of at least 4 lifetimes have a value"),
        ([0.1, 0.2, math.nan, math.nan, 0.3], "3 of at least 4 lifetimes have a value"),
        ([0.1, 0.2, math.inf, 0.3, 0.1], "a bound: 1 of 5 lifetimes have an infinite ratio"),
        ([0.1] * 5, "all lifetimes have the same value"),
        ([], "no lifetime has a value"),
        ([math.nan], "no lifetime has a value"),
    ],
)
def test_what_is_no_estimate_enters_no_pooled_value_and_says_why(logs: list[float], why: str) -> None:
    one = estimate(logs)
    assert one.why == why
    rng = np.random.default_rng(1)
    assert pool([one, *(estimate(rng.normal(0, 0.1, 5)) for _ in range(2))]) is None


# --------------------------------------------------------------------------------- which runs are merged


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (lambda m: {"code_digest": "other"}, "the code that measures"),
        (lambda m: {"design": msgspec.structs.replace(m.design, timeout_s=9.0)}, "timeout_s"),
        (lambda m: {"design": msgspec.structs.replace(m.design, contrasts=m.design.contrasts[:1])}, "contrasts"),
        (lambda m: {"design": msgspec.structs.replace(m.design, arms=m.design.arms[::-1])}, "arms"),
        (
            lambda m: {
                "implementations": {k: msgspec.structs.replace(v, version="2") for k, v in m.implementations.items()}
            },
            "what answers",
        ),
        (lambda m: {"status": "interrupted"}, "is not complete"),
    ],
)
def test_runs_in_which_more_than_the_machine_differs_are_refused(
    runs: dict[str, Path], fields: Callable[[RunManifest], dict[str, object]], said: str
) -> None:
    first, second = sources_of(runs, "lab", "cloud")
    with pytest.raises(DataError, match=said):
        check_mergeable([first, changed(second, **fields(second.run.manifest))])


def test_two_runs_of_one_machine_are_refused_unless_the_user_says_that_they_are_two(runs: dict[str, Path]) -> None:
    """Two hosts of one cloud image cannot be told apart; two runs of one host would count twice."""
    first, second = sources_of(runs, "lab", "cloud")
    alike = changed(second, machine=first.run.manifest.machine)
    check_mergeable([first, alike])
    with pytest.raises(DataError, match=r"look like runs of one machine.*name them"):
        check_mergeable([replace(first, told=False), replace(alike, told=False)])
    with pytest.raises(ConfigError, match="two runs have the machine 'lab'"):
        check_mergeable([first, replace(alike, machine="lab")])
    with pytest.raises(DataError, match="are the same run"):
        check_mergeable([first, replace(first, machine="other")])
    with pytest.raises(ConfigError, match="two machines or more"):
        check_mergeable([first])


def test_the_machine_is_a_factor_of_the_table(runs: dict[str, Path]) -> None:
    sources = sources_of(runs)
    found = merge(sources)
    assert len(found) == len(sources[0].run.manifest.design.contrasts)
    rows = table(found, [f"contrast {k}" for k in range(len(found))])
    by_machine = rows[rows["machine"] != POOLED]
    assert set(by_machine["machine"]) == set(CPUS)
    assert len(by_machine) == len(found) * len(CPUS)
    times = rows[(rows["metric"] != SATURATION)]
    assert (times.loc[times["machine"] != POOLED, "rates_per_s"] != "").all(), "moderate load is each machine's own"
    assert times.loc[times["machine"] == POOLED, "machines"].tolist() == [3]


def test_an_arm_that_one_machine_lacks_is_said_to_be_missing_there(runs: dict[str, Path]) -> None:
    sources = sources_of(runs)
    run = sources[0].run
    without = Run(run.folder, run.manifest, tuple(t for t in run.trials if t.manifest.arm_number != 0))
    found = merge([replace(sources[0], run=without), *sources[1:]])
    assert {one.machines[0].estimate.why for one in found} == {"no lifetime has a value"}
    assert all(one.pooled is None for one in found)
    assert "none: 2 of at least 3 machines" in reports.text(sources, found)


# --------------------------------------------------------------------------------------- the command


def test_the_command_prints_the_machines_and_draws_them(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"{name}={path}" for name, path in runs.items()]
    assert cli.main(["merge", *places, "--figures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name, (cpu, cores) in CPUS.items():
        assert f"{name}: {cpu}, {cores} cores" in printed
    assert "over 3 machines, which differ by a factor of" in printed
    assert "random effect" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged.csv", "merged.pdf", "merged.png"]
    assert "machine" in (tmp_path / "merged.csv").read_text().splitlines()[0].split(",")
    assert cli.main(["merge", *places, "--json"]) == 0
    rows = msgspec.json.decode(capsys.readouterr().out)["contrasts"]
    assert {row["machine"] for row in rows} == {*CPUS, POOLED}


def test_machines_without_a_name_are_called_by_their_processor(runs: dict[str, Path]) -> None:
    assert [one.machine for one in read([str(path) for path in runs.values()])] == [
        "Intel Xeon, 2 cores",
        "AMD EPYC, 4 cores",
        "Ampere Altra, 8 cores",
    ]


@pytest.mark.parametrize("place", ["nowhere", "name=nowhere", "name="])
def test_a_folder_that_is_no_run_is_one_clear_line(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["merge", place, place]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_a_machine_is_what_its_record_says() -> None:
    """A new field of a machine must be thought of here: two runs that differ in it are of two machines."""
    fields = {"cpu", "cores", "governor", "memory_gib", "kernel", "os", "python", "caches"}
    assert set(Machine.__struct_fields__) == fields
