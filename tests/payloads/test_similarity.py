"""Requests that are alike by so much: if these fail, a cache looks better, or worse, than its requests make it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.deployment import FRAMEWORKS
from infscale.errors import ConfigError
from infscale.experiment.design.arm import Arm
from infscale.models.reference import inputs
from infscale.payloads import similarity
from infscale.payloads.encoders import Payload

SEED = np.random.SeedSequence(1)


def pool(framework: str, protocol: str, encoding: str) -> Payload:
    rows = similarity.marked(inputs("mlp", 8))
    return FRAMEWORKS[framework].interface.payload(protocol, "mlp", rows, encoding=encoding)


ENCODINGS = [("triton", "rest", "json"), ("triton", "rest", "raw"), ("triton", "grpc", "protobuf")]
ENCODINGS += [("tfserving", "rest", "json"), ("tfserving", "grpc", "protobuf"), ("torchserve", "grpc", "raw")]


@pytest.mark.parametrize(("framework", "protocol", "encoding"), ENCODINGS)
def test_no_two_bodies_are_equal_and_none_changes_its_length(framework: str, protocol: str, encoding: str) -> None:
    """A body that is sent twice by accident would be a hit."""
    payload = pool(framework, protocol, encoding)
    made = [*similarity.distinct(payload.bodies, 3000, 1), *similarity.distinct(payload.bodies, 3000, 2)]
    assert len(set(made)) == 6000
    assert {len(body) for body in made} <= {len(body) for body in payload.bodies}


@settings(max_examples=20, deadline=None)
@given(fraction=st.floats(0, 1), key=st.integers(0, 1000))
def test_the_fraction_that_repeats_is_the_one_asked_for(fraction: float, key: int) -> None:
    bodies = pool("triton", "grpc", "protobuf").bodies
    seed = np.random.SeedSequence(1, spawn_key=(key,))
    every, choice = similarity.repeating(bodies, fraction, 2000, seed, "arm")
    hot = choice < similarity.HOT
    assert abs(hot.mean() - fraction) < 0.06
    assert len(np.unique(choice[~hot])) == (~hot).sum()
    assert choice.max(initial=0) < len(every)


def test_another_trial_has_other_new_bodies_and_the_same_hot_ones() -> None:
    """Else the second trial of a run would be answered from what the first left in the cache."""
    bodies = pool("triton", "rest", "json").bodies
    one, _ = similarity.repeating(bodies, 0.5, 1000, np.random.SeedSequence(1, spawn_key=(1,)), "arm")
    other, _ = similarity.repeating(bodies, 0.5, 1000, np.random.SeedSequence(1, spawn_key=(2,)), "arm")
    third, _ = similarity.repeating(bodies, 0.5, 1000, np.random.SeedSequence(1, spawn_key=(2,)), "other arm")
    assert set(one) & set(other) == set(one[: similarity.HOT])
    assert set(third) & set(other) == set(one[: similarity.HOT])


def test_popularity_follows_zipf() -> None:
    bodies = pool("triton", "grpc", "protobuf").bodies
    _, choice = similarity.popular(bodies, 1.0, 100_000, SEED, "arm")
    share = np.sort(np.bincount(choice) / len(choice))[::-1]
    weights = 1 / np.arange(1, similarity.CATALOGUE + 1)
    expected = weights / weights.sum()
    assert np.allclose(share[:3], expected[:3], rtol=0.05)


def test_another_trial_has_another_catalogue() -> None:
    bodies = pool("triton", "grpc", "protobuf").bodies
    one, other = (similarity.popular(bodies, 1.0, 1000, np.random.SeedSequence(1, spawn_key=(k,)), "a") for k in (1, 2))
    assert not set(one[0]) & set(other[0])


def test_decimals_stay_valid_json_and_the_model_still_answers() -> None:
    import json

    body = similarity.distinct(pool("triton", "rest", "json").bodies, 3, 77)[2]
    data = json.loads(body)["inputs"][0]["data"]
    assert data[:2] == [0.000077, 0.000002]
    assert len(data) == 784


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"repeat": 1.5}, "repeat=1.5 is not a fraction"),
        ({"zipf": 0.0}, "zipf=0.0 is not an exponent"),
        ({"repeat": 0.5, "zipf": 1.0}, "exclude each other"),
        ({"repeat": 0.5, "batch": 4}, "repeat and zipf need batch=1"),
    ],
)
def test_what_cannot_be_is_refused(what: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Arm("rest", **what)  # type: ignore[arg-type]


def test_an_encoding_that_cannot_be_changed_in_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="changed in place"):
        similarity.distinct(pool("tfserving", "rest", "b64").bodies, 2, 1)
