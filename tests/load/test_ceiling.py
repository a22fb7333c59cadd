"""If these fail, a limit of the load generator is reported as one of the server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.load import ceiling

POINTS = [(256.0, 80_000.0), (16_384.0, 40_000.0), (1_048_576.0, 5_000.0)]


@pytest.mark.parametrize(
    ("size", "rate"),
    [(256, 80_000), (10, 80_000), (2048, np.sqrt(80_000 * 40_000)), (1_048_576, 5_000), (2 * 1_048_576, 2_500)],
)
def test_between_the_sizes_measured_the_ceiling_is_interpolated(size: int, rate: float) -> None:
    assert ceiling.at(POINTS, size) == pytest.approx(rate)


@given(st.floats(1, 1e8), st.floats(1, 1e8))
def test_a_larger_body_never_has_a_higher_ceiling(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert ceiling.at(POINTS, large) <= ceiling.at(POINTS, small) * (1 + 1e-9)


def test_a_payload_is_judged_by_its_mean_size() -> None:
    assert ceiling.of_payload({"rest": POINTS}, "rest", [bytes(256), bytes(256)]) == pytest.approx(80_000)
    assert ceiling.of_payload({"rest": POINTS}, "grpc", [bytes(256)]) is None


@pytest.mark.server
def test_the_ceiling_is_measured_against_a_real_server_at_every_size() -> None:
    found = ceiling.measure(("grpc",))
    assert [size for size, _ in found["grpc"]] == list(ceiling.SIZES)
    assert all(rate > 0 for _, rate in found["grpc"])
