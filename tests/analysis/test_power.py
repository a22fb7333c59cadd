"""If these fail, a night is planned that cannot answer its question."""

import re
from pathlib import Path

import numpy as np
import pytest

from helpers.synthetic_run import build
from infscale.analysis import power
from infscale.analysis.answers import DIFFERS, answers, claim, needed
from infscale.analysis.power import detectable, earlier_spread, power_of
from infscale.errors import ConfigError
from infscale.experiment.design import time_plan
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import MARGINS, P95, SATURATION, Contrast, Design
from infscale.records.runs import load_run

CASES = 2000
DESIGN = Design(
    finding="protocols",
    arms=(Arm("rest", framework="triton"), Arm("grpc", framework="triton")),
    contrasts=(Contrast(0, 1), Contrast(0, 1, SATURATION)),
)


def found(effect: float, spread: float, lifetimes: int) -> float:
    """How often the first look at a contrast of that many lifetimes tells the ratio from 1, by simulation."""
    rng = np.random.default_rng(11)
    logs = rng.normal(np.log(effect), spread, (CASES, lifetimes))
    return float(np.mean([answers([claim(one, lifetimes, MARGINS[P95])])[0] == DIFFERS for one in logs]))


@pytest.mark.parametrize(("effect", "spread", "lifetimes"), [(1.2, 0.1, 6), (1.5, 0.3, 10), (0.7, 0.2, 5)])
def test_a_difference_is_found_as_often_as_the_plan_promises(effect: float, spread: float, lifetimes: int) -> None:
    """Promised too much, the night decides nothing; too little, and it is not begun."""
    assert found(effect, spread, lifetimes) == pytest.approx(power_of(effect, spread, lifetimes), abs=0.04)


@pytest.mark.parametrize(("effect", "spread"), [(1.2, 0.1), (1.3, 0.2)])
def test_as_many_lifetimes_as_promised_are_enough_and_fewer_are_not(effect: float, spread: float) -> None:
    """Too few and the night decides nothing; too many and it is wasted."""
    n = needed(spread, effect, family=1, look=0)
    assert power_of(effect, spread, n) >= 0.8
    assert power_of(effect, spread, n - 1) < 0.8


def test_the_smallest_ratio_that_is_promised_is_found_as_often() -> None:
    """The plan says which ratios a budget can decide: a smaller one would be waited for in vain."""
    least = detectable(0.2, 8, family=6)
    assert power_of(least, 0.2, 8, family=6) == pytest.approx(0.8, abs=1e-3)
    assert detectable(0.2, 16, family=6) < least < detectable(0.2, 8, family=12)
    assert found(detectable(0.15, 7), 0.15, 7) == pytest.approx(0.8, abs=0.04)
    assert (detectable(0.0, 4), detectable(0.1, 3)) == (1.0, float("inf"))


def test_more_contrasts_share_the_error_and_need_more() -> None:
    """Else the plan of a study with twelve contrasts promises what holds for one."""
    assert power_of(1.2, 0.2, 8, family=12) < power_of(1.2, 0.2, 8)
    assert needed(0.2, 1.2, family=12) > needed(0.2, 1.2, family=1)


def test_no_spread_needs_the_fewest_and_no_effect_more_than_anyone_has() -> None:
    """The ends of the scale: neither a division by 0 nor an endless search."""
    assert (needed(0.0, 1.1, 1), power_of(1.1, 0.0, 4), power_of(1.1, 0.1, 3)) == (4, 1.0, 0.0)
    assert needed(0.1, 1.0, 1) == 1000


def test_the_spread_of_an_earlier_run_is_that_of_its_contrasts(tmp_path: Path) -> None:
    """A spread of response times instead would promise other nights than those that come."""
    spreads = earlier_spread(load_run(build(tmp_path, lifetimes=5, spread=0.1)))
    assert list(spreads.index) == [P95, SATURATION]
    assert 0.05 < spreads[P95] < 0.8


def test_the_plan_names_what_is_compared_and_takes_the_spread_of_an_earlier_run(tmp_path: Path) -> None:
    """Without it a user starts a night and learns afterwards that it could not have found the difference."""
    run = build(tmp_path)
    text = power.plan(DESIGN, str(run), effect=1.2)
    assert "Arms: REST; gRPC" in text
    named = "2 contrasts, with one value in each lifetime, corrected (Holm) over all: "
    both = "p95 response time at moderate load and saturation rate λ* of REST ÷ gRPC"
    assert f"Named before the run: {named}{both}." in text
    assert f"Power, by the spread between lifetimes in {run.name}, measured on another machine:" in text
    assert f" {time_plan.lifetimes(DESIGN)} lifetimes decide ratios of " in text
    assert ",," not in text
    assert re.search(r"  p95 response time at moderate load: ratios differ by \d+ % between lifetimes\. ", text)
    assert re.search(r"; that one needs (\d+|more than 1,000) lifetimes for 80 %, about", text)


def test_without_contrasts_there_is_nothing_to_compare() -> None:
    """One protocol alone: no power, and no error."""
    text = power.plan(Design(finding="f", arms=DESIGN.arms[:1]))
    assert text.endswith("Named before the run: nothing to compare.")


def test_an_earlier_run_with_too_few_lifetimes_is_said_to_have_no_contrast(tmp_path: Path) -> None:
    """A reader must know which run to look at, and what it lacks."""
    earlier = build(tmp_path, lifetimes=2)
    assert f"{earlier.name} has no contrast with 3 lifetimes or more" in power.plan(DESIGN, str(earlier))


def test_before_a_first_run_power_is_said_to_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess would be taken for a promise."""
    monkeypatch.chdir(tmp_path)
    assert "Power: not known before a first run" in power.plan(DESIGN)


@pytest.mark.parametrize("effect", [1.0, 0.0, -1.0, float("nan")])
def test_an_effect_that_is_none_is_refused(effect: float) -> None:
    """Power for no difference is a number without meaning."""
    with pytest.raises(ConfigError, match="is no difference"):
        power.plan(DESIGN, effect=effect)
