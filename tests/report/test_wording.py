"""Sentences: if these fail, a report names the wrong winner, or says "unknown times that of gRPC"."""

from typing import Any

import pandas as pd
import pytest

from infscale.analysis.intervals import Interval
from infscale.experiment.design.design import P95, SATURATION
from infscale.report.wording import (
    contrast_text,
    interval_text,
    metric_text,
    needed_text,
    ratio_text,
    saturation_range,
    saturation_text,
)

NAN, INF = float("nan"), float("inf")

# --- contrasts ----------------------------------------------------------------------------------------


def row(answer: str, ratio: float, low: float = NAN, high: float = NAN, **changes: Any) -> "pd.Series[Any]":
    """A contrast of REST with gRPC, looked at with eight lifetimes."""
    columns = {"label": "REST", "reference_label": "gRPC", "metric": P95, "answer": answer, "ratio": ratio}
    columns |= {"ratio_low": low, "ratio_high": high, "lifetimes": 9, "looked_at": 8}
    columns |= {"needed": NAN, "needed_ratio": 1.2, "sessions": ""}
    return pd.Series(columns | changes, dtype=object)


@pytest.mark.parametrize(
    ("metric", "ratio", "text"),
    [
        (P95, 1.5, "REST is slower than gRPC: its p95 response time is 1.50 times as long"),
        (P95, 0.5, "REST is faster than gRPC: its p95 response time is 0.500 times as long"),
        (SATURATION, 1.5, "REST keeps up with more load than gRPC: its λ* is 1.50 times as high"),
        (SATURATION, 0.5, "REST keeps up with less load than gRPC: its λ* is 0.500 times as high"),
    ],
)
def test_a_difference_is_said_in_its_direction_with_its_interval(metric: str, ratio: float, text: str) -> None:
    """A sentence that knows its direction beforehand is an opinion."""
    said = contrast_text(row("differs", ratio, 0.9 * ratio, 1.1 * ratio, metric=metric))
    assert said == f"{text} (95 % interval {0.9 * ratio:#.3g} to {1.1 * ratio:#.3g}, 8 lifetimes)"


@pytest.mark.parametrize(
    ("metric", "text"), [(P95, "equal within 10 % in p95 response time"), (SATURATION, "equal within 15 % in λ*")]
)
def test_equal_is_said_as_equal_with_its_margin(metric: str, text: str) -> None:
    """Said as undecided, a reader goes on measuring what is known."""
    said = contrast_text(row("equal", 1.02, 0.98, 1.05, metric=metric))
    assert said == f"REST and gRPC are {text} (ratio 1.02, 95 % interval 0.980 to 1.05, 8 lifetimes)"


def test_sessions_that_differ_are_told_apart() -> None:
    """The mean of two machines, or of two days, is a ratio that neither has."""
    assert "its sessions differ: 0.57, 0.71)" in contrast_text(row("differs", 0.63, 0.5, 0.8, sessions="0.57, 0.71"))


@pytest.mark.parametrize(("metric", "what"), [(P95, "is faster"), (SATURATION, "has the higher λ*")])
def test_undecided_names_neither_arm_and_says_what_would_decide(metric: str, what: str) -> None:
    """A winner between the lines is quoted as one."""
    said = contrast_text(row("undecided", 1.1, 0.8, 1.4, metric=metric, needed=21.0))
    name = "p95 response time" if metric == P95 else "λ*"
    numbers = f"{name} ratio 1.10, 95 % interval 0.800 to 1.40, 8 lifetimes"
    assert said == (
        f"undecided whether REST or gRPC {what} ({numbers}; about 21 lifetimes would decide a ratio of 1.2)"
    )


def test_before_the_first_look_there_is_an_estimate_and_no_interval() -> None:
    """An interval there would be read as an answer."""
    said = contrast_text(row("undecided", 1.1, looked_at=0, lifetimes=3))
    assert (
        said
        == "undecided whether REST or gRPC is faster (p95 response time ratio 1.10, 3 lifetimes, not looked at yet)"
    )


@pytest.mark.parametrize(
    ("answer", "ratio", "low", "high", "text"),
    [
        (
            "differs",
            INF,
            1.4,
            INF,
            "is slower than gRPC: its p95 response time is at least 1.40 times as long (with 95 %",
        ),
        (
            "differs",
            0.0,
            0.0,
            0.7,
            "is faster than gRPC: its p95 response time is at most 0.700 times as long (with 95 %",
        ),
        (
            "differs",
            2.0,
            1.4,
            INF,
            "its p95 response time is 2.00 times as long (with 95 % at least 1.40, 8 lifetimes)",
        ),
        (
            "differs",
            0.5,
            0.0,
            0.7,
            "its p95 response time is 0.500 times as long (with 95 % at most 0.700, 8 lifetimes)",
        ),
        ("undecided", INF, 0.8, INF, "(p95 response time ratio not known, with 95 % at least 0.800, 8 lifetimes)"),
        ("undecided", NAN, 0.0, INF, "(p95 response time ratio not known, no bound known, 8 lifetimes)"),
        ("undecided", 1.3, 0.0, INF, "(p95 response time ratio 1.30, no bound known, 8 lifetimes)"),
    ],
)
def test_where_only_a_bound_is_known_the_bound_is_said(
    answer: str, ratio: float, low: float, high: float, text: str
) -> None:
    """ "∞ times as long" is no result, and a bound that is left out is a result that nobody hears of."""
    assert text in contrast_text(row(answer, ratio, low, high))


def test_a_bound_says_why_there_is_no_ratio() -> None:
    """For λ* it is another reason than for p95."""
    time = contrast_text(row("differs", INF, 1.4, INF))
    rate = contrast_text(row("differs", INF, 1.4, INF, metric=SATURATION))
    assert time.endswith("(with 95 %; one of them did not keep up in half of 8 lifetimes or more)")
    assert rate.endswith("(with 95 %; one of them has no end in half of 8 lifetimes or more)")


def test_without_a_lifetime_of_both_there_is_nothing_to_compare() -> None:
    """ "Undecided" would send a reader for more of the same."""
    said = contrast_text(row("undecided", NAN, lifetimes=0, looked_at=0))
    assert said == "REST and gRPC cannot be compared in p95 response time: no lifetime has a usable value of both"


def test_names_with_commas_are_quoted() -> None:
    """ "REST, JSON, gzip or REST, JSON" names two arms or four."""
    said = contrast_text(row("undecided", 1.1, 0.8, 1.4), "REST, JSON, gzip", "REST, JSON")
    assert said.startswith("undecided whether “REST, JSON, gzip” or “REST, JSON” is faster")


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [
        (21, None, "about 21"),
        (5, 40, "about 5 to 40"),
        (7, 1000, "about 7 to more than 1,000"),
        (1000, None, "about more"),
    ],
)
def test_needed_lifetimes_end_at_a_thousand(least: float, most: float | None, text: str) -> None:
    """ "1000 lifetimes would decide" promises what was never reckoned."""
    assert needed_text(least, most).startswith(text.replace("about more", "more"))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.2, 1.8, "95 % interval 1.20 to 1.80"),
        (1.2, INF, "with 95 % at least 1.20"),
        (0.0, 1.8, "with 95 % at most 1.80"),
        (0.0, INF, "no bound known"),
    ],
)
def test_an_interval_may_have_one_end(low: float, high: float, text: str) -> None:
    assert interval_text(low, high) == text


def test_metrics_have_names() -> None:
    assert metric_text(P95) == "p95 response time"
    assert metric_text(SATURATION) == "saturation rate λ*"
    assert metric_text("roundtrip_p50_ms") == "p50 round-trip time"


# --- descriptions -------------------------------------------------------------------------------------


def of(value: float, lifetimes: int, low: float = NAN, high: float = NAN) -> Interval:
    """A ratio over lifetimes."""
    return Interval(value, low, high, lifetimes, NAN)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (of(1.3, 4, 1.2, 1.4), "its p95 is 1.30 times that of gRPC (95 % interval 1.20 to 1.40)"),
        (of(1.3, 2), "its p95 is 1.30 times that of gRPC (only 2 lifetimes; an interval needs 3)"),
        (of(1.3, 1), "its p95 is 1.30 times that of gRPC (only 1 lifetime; an interval needs 3)"),
        (of(NAN, 0), "its p95 cannot be compared with that of gRPC (no lifetime has a usable value of both)"),
        (
            of(NAN, 4),
            "its p95 cannot be compared with that of gRPC "
            "(in a lifetime one of them did not keep up, or kept up with every rate)",
        ),
        (None, "its p95 cannot be compared with that of gRPC (one of them was not measured)"),
    ],
)
def test_a_ratio_is_a_sentence_with_and_without_a_value(estimate: Interval | None, text: str) -> None:
    assert ratio_text("its p95", estimate, "that of gRPC") == text


@pytest.mark.parametrize(
    ("bound", "lifetimes", "text"),
    [
        ("", 7, "1,000 requests/s (95 % interval 950 to 1,050, 7 lifetimes)"),
        ("≥", 7, "about 1,000 requests/s or more (in at least one of 7 lifetimes it kept up with every rate)"),
        ("≥", 1, "about 1,000 requests/s or more (in its only lifetime it kept up with every rate)"),
        ("<", 7, "below 1,000 requests/s (in at least one of 7 lifetimes it kept up with no rate)"),
        ("?", 0, "unknown (no usable trial)"),
    ],
)
def test_a_saturation_rate_is_an_estimate_a_bound_or_unknown(bound: str, lifetimes: int, text: str) -> None:
    """A bound that reads as an estimate is quoted as one."""
    columns = {"bound": bound, "low_per_s": 950.0, "high_per_s": 1050.0, "saturation_per_s": 1000.0}
    arm = pd.Series(columns | {"saturation_lifetimes": lifetimes}, dtype=object)
    assert saturation_range(arm) == text
    assert saturation_text(arm) == f"is {text}"


def test_a_saturation_rate_of_two_lifetimes_has_no_interval() -> None:
    columns = {"bound": "", "low_per_s": NAN, "high_per_s": NAN, "saturation_per_s": 1000.0, "saturation_lifetimes": 2}
    assert saturation_range(pd.Series(columns, dtype=object)) == "1,000 requests/s (2 lifetimes, no interval)"


def test_a_saturation_rate_of_lifetimes_that_are_all_alike_has_no_interval() -> None:
    """ "95 % interval 0 to ∞" is no sentence: brackets of one grid say nothing of how sure they are."""
    columns = {"bound": "", "low_per_s": 0.0, "high_per_s": INF, "saturation_per_s": 1000.0, "saturation_lifetimes": 7}
    assert saturation_range(pd.Series(columns, dtype=object)) == "1,000 requests/s (7 lifetimes, no interval)"
