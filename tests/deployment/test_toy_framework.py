"""If these fail, somebody who adds a framework of their own has to change more than the one module that defines it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.toy import TOY
from infscale import deployment, measure, save, tabulate, vocabulary
from infscale.deployment.counters import cache_counts, statistics
from infscale.deployment.endpoint import Endpoint, check_answers, predict
from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.findings import protocols
from infscale.models.reference import inputs

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def added() -> Iterator[None]:
    deployment.add(TOY)
    yield
    del deployment.FRAMEWORKS["toy"], vocabulary.FRAMEWORK_NAMES["toy"]


@pytest.fixture(scope="module")
def toy(added: None) -> Iterator[Endpoint]:
    with deployment.deploy("toy", "mlp") as endpoint:
        yield endpoint


def test_every_encoding_gets_the_references_answer(toy: Endpoint) -> None:
    differences = check_answers(toy)
    assert 1e-5 < differences.pop("rest/half") <= 1e-3, "fp16 has 11 bits"
    assert set(differences) == {"rest/json", "rest/raw", "grpc/raw"}
    assert max(differences.values()) <= 1e-5


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_trial_loads_it_and_its_counter_tells_how_often(toy: Endpoint, protocol: str) -> None:
    before = statistics(toy)["requests"]
    outcome = trial.run(toy, trial.Plan(Arm(protocol), rate_per_s=40, duration_s=1))
    assert set(outcome.samples["status"]) == {"ok"}
    assert statistics(toy)["requests"] == before + len(outcome.samples)
    assert outcome.manifest.arm.framework == "toy"


def test_a_cache_answers_for_it() -> None:
    """Nobody told the gateway which of its requests are predictions."""
    with FRONTS["cache"].start("toy", "mlp") as cache:
        for protocol in ("rest", "grpc"):
            for _ in range(2):
                predict(cache, protocol, inputs("mlp", 1))
        assert cache_counts(cache)["hits"] == cache_counts(cache)["misses"] == 2
        assert statistics(cache)["requests"] >= 2


def test_an_edge_asks_it_over_grpc() -> None:
    with FRONTS["edge"].start("toy", "mlp") as edge:
        assert max(check_answers(edge).values()) <= 1e-5


def test_what_it_does_not_take_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"way='docker' is no option of Toy; accepted: grpc_port, log_folder"):
        deployment.deploy("toy", "mlp", way="docker")
    with pytest.raises(ConfigError, match=r"encoding='npy' .* toy takes .* accepted: half, json, raw"):
        TOY.interface.encoding("rest", name="npy")
    with (
        pytest.raises(ConfigError, match="'toy' serves the reference models only"),
        deployment.attach("toy", model="mine", rest="127.0.0.1:1"),
    ):
        pass


def test_the_protocols_finding_measures_it_and_draws_it(tmp_path: Path) -> None:
    """F0 at its smallest: one lifetime of both protocols, the framework as a factor, every picture that has data."""
    design = protocols.grid(["toy"]).design("tiny", most_per_s=300)  # more would only fill its queue
    run = measure(design, tmp_path / "runs", say=lambda _: None)
    tables = tabulate(run)
    assert set(tables.points["framework"]) == {"toy"}
    assert set(tables.points["protocol"]) == {"rest", "grpc"}
    result = save(protocols.FINDING, run, tables, tmp_path / "figures")
    drawn = [figure.file for figure in result.figures]
    assert all((tmp_path / "figures" / name).stat().st_size > 1000 for name in drawn)
    assert any("percentiles" in name for name in drawn)
    assert any("Toy" in sentence for sentence in result.sentences)
