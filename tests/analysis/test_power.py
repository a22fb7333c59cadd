"""If these fail, a night is planned that cannot answer its question."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.synthetic_run import build
from infscale.analysis import power
from infscale.analysis.intervals import CONFIDENCE, geometric_mean
from infscale.analysis.power import replicates_needed
from infscale.errors import ConfigError
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SWEEP, Contrast, Design

CASES = 4000
DESIGN = Design(
    finding="protocols",
    arms=(Arm("rest", framework="triton"), Arm("grpc", framework="triton")),
    contrasts=(Contrast(0, 1),),
    rates=SWEEP,
)


def rejected(effect: float, differ: float, replicates: int) -> float:
    """How often a paired comparison of that many replicates tells the ratio from 1, by simulation."""
    rng = np.random.default_rng(11)
    logs = rng.normal(np.log(effect), np.log1p(differ), (CASES, replicates))
    p_values = np.asarray(stats.ttest_1samp(logs, 0, axis=1).pvalue)
    assert geometric_mean(np.exp(logs[0])).p_value == pytest.approx(p_values[0]), "the test that ratios are judged by"
    return float(np.mean(p_values < 1 - CONFIDENCE))


@pytest.mark.parametrize(("effect", "differ"), [(1.1, 0.05), (1.3, 0.2), (0.8, 0.1)])
def test_as_many_replicates_as_promised_are_enough_and_one_fewer_is_not(effect: float, differ: float) -> None:
    """Too few and the night decides nothing; too many and it is wasted."""
    n = replicates_needed(effect, differ)
    assert rejected(effect, differ, n) >= 0.8 - 0.02
    assert n == 3 or rejected(effect, differ, n - 1) < 0.8 + 0.02


def test_no_spread_needs_the_fewest_and_no_effect_more_than_anyone_has() -> None:
    """The ends of the scale: neither a division by 0 nor an endless search."""
    assert replicates_needed(1.1, 0.0) == 3
    assert replicates_needed(1.0, 0.1) == 1000


def test_the_plan_names_what_is_compared_and_takes_the_spread_of_an_earlier_run(tmp_path: Path) -> None:
    """Without it a user starts a night and learns afterwards that it could not have found the difference."""
    text = power.plan(DESIGN, str(build(tmp_path)), effect=1.2)
    assert "Arms: REST; gRPC" in text
    assert "REST ÷ gRPC of response_p95_ms" in text
    assert "measured on another machine" in text
    assert "TorchServe, REST ÷ TorchServe, gRPC: ratios differ by" in text
    assert "difference of 20 % with a probability of" in text
    assert re.search(r"; a probability of 80 % needs \d+ replicates, about", text)
    assert "corrected (Holm) over all comparisons at all rates: REST ÷ gRPC" in text


def test_an_earlier_run_with_too_few_replicates_is_said_to_have_no_comparison(tmp_path: Path) -> None:
    """A reader must know which run to look at, and what it lacks."""
    earlier = build(tmp_path, replicates=2)
    text = power.plan(DESIGN, str(earlier))
    assert f"{earlier.name} has no comparison with 3 replicates or more" in text


def test_before_a_first_run_power_is_said_to_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess would be taken for a promise."""
    monkeypatch.chdir(tmp_path)
    assert "Power: not known before a first run" in power.plan(DESIGN)


@pytest.mark.parametrize("effect", [1.0, 0.0, -1.0, float("nan")])
def test_an_effect_that_is_none_is_refused(effect: float) -> None:
    """Power for no difference is a number without meaning."""
    with pytest.raises(ConfigError, match="is no difference"):
        power.plan(DESIGN, effect=effect)
