"""Parts of sentences: if these fail, a report says "unknown times that of gRPC", or gives no reason for a gap."""

import pandas as pd
import pytest

from infscale.analysis.intervals import Interval
from infscale.report.wording import capacity_ratio_text, ratio_text, saturation_range, saturation_text

NAN = float("nan")


def of(value: float, replicates: int, low: float = NAN, high: float = NAN) -> Interval:
    """A ratio over replicates."""
    return Interval(value, low, high, replicates, NAN)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (of(1.3, 4, 1.2, 1.4), "its p95 is 1.30 times that of gRPC (95 % interval 1.20 to 1.40)"),
        (of(1.3, 2), "its p95 is 1.30 times that of gRPC (only 2 replicates; an interval needs 3)"),
        (of(1.3, 1), "its p95 is 1.30 times that of gRPC (only 1 replicate; an interval needs 3)"),
        (
            of(NAN, 0),
            "its p95 cannot be compared with that of gRPC "
            "(no replicate in which both are VALID and steady, or one of them was SATURATED)",
        ),
        (None, "its p95 cannot be compared with that of gRPC (one of them was not measured)"),
    ],
)
def test_a_ratio_is_a_sentence_with_and_without_a_value(estimate: Interval | None, text: str) -> None:
    assert ratio_text("its p95", estimate, "that of gRPC") == text


@pytest.mark.parametrize(
    ("estimate", "reason"),
    [
        (of(NAN, 0), "both rates have a lower and an upper bound in no replicate; every replicate needs both"),
        (of(NAN, 1), "both rates have a lower and an upper bound in only 1 replicate; every replicate needs both"),
        (of(NAN, 3), "both rates have a lower and an upper bound in only 3 replicates; every replicate needs both"),
    ],
)
def test_saturation_rates_without_brackets_cannot_be_compared(estimate: Interval, reason: str) -> None:
    assert (
        capacity_ratio_text("its rate", estimate, "that of X")
        == f"its rate cannot be compared with that of X ({reason})"
    )


def test_a_ratio_of_saturation_rates_that_lacks_only_its_interval_says_so() -> None:
    text = capacity_ratio_text("its rate", of(1.5, 2), "that of X")
    assert text == "its rate is 1.50 times that of X (only 2 replicates; an interval needs 3)"
    text = capacity_ratio_text("its rate", of(1.5, 4, 1.4, 1.6), "that of X")
    assert text == "its rate is 1.50 times that of X (95 % interval 1.40 to 1.60)"


@pytest.mark.parametrize(
    ("bound", "contradictions", "text"),
    [
        ("", 0, "lies between 950 and 1050 requests/s (95 % interval 900 to 1100, over replicates)"),
        ("≥", 0, "lies at or above 950 requests/s (never SATURATED in this run)"),
        ("<", 0, "lies below 1050 requests/s (nothing below was VALID)"),
        ("~", 1, "lies near 1000 requests/s (1 verdict contradicts it)"),
        ("~", 2, "lies near 1000 requests/s (2 verdicts contradict it)"),
        ("?", 0, "is unknown (no usable trial)"),
    ],
)
def test_a_saturation_rate_has_its_own_verb(bound: str, contradictions: int, text: str) -> None:
    arm = pd.Series(
        {
            "bound": bound,
            "low_per_s": 950.0,
            "high_per_s": 1050.0,
            "saturation_per_s": 1000.0,
            "interval_low_per_s": 900.0,
            "interval_high_per_s": 1100.0,
            "contradictions": contradictions,
        },
        dtype=object,
    )
    assert saturation_text(arm) == text
    assert saturation_range(arm) == text.removeprefix("lies ").removeprefix("is "), "a cell of a table has no verb"
