"""Cost: if these fail, a user buys the wrong machine."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infscale.analysis import cost
from infscale.errors import ConfigError

AMOUNTS = st.floats(1e-6, 1e9)
PRICES = st.floats(0, 1e6)


def test_a_known_price() -> None:
    """1,000 requests/s are 3.6 million an hour: at 3.60 an hour, a million costs 1."""
    assert cost.per_million(1000, 3.6) == pytest.approx(1)
    assert cost.per_core(1000, 2) == 500
    assert cost.per_gb(1000, 5e8) == 2000
    assert cost.per_cpu_second(1000, 4) == 250


@given(AMOUNTS, PRICES, st.floats(1.01, 100))
def test_twice_the_capacity_costs_half_and_twice_the_price_double(rate: float, price: float, factor: float) -> None:
    once = cost.per_million(rate, price)
    assert cost.per_million(rate * factor, price) == pytest.approx(once / factor)
    assert cost.per_million(rate, price * factor) == pytest.approx(once * factor)


@given(st.one_of(st.floats(max_value=-1e-300), st.sampled_from([math.nan, math.inf, -math.inf])))
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(ConfigError, match="is not a price; accepted: 0 or more"):
        cost.per_million(100, price)
    with pytest.raises(ConfigError, match="price_per_hour"):
        cost.table(pd.DataFrame(columns=["capacity_per_s", "cores", "rss_peak_bytes"]), price)


@given(st.one_of(st.floats(max_value=-1e-300), st.sampled_from([math.inf, -math.inf])))
def test_an_amount_that_is_none_is_refused(value: float) -> None:
    for each in (cost.per_core, cost.per_gb, cost.per_cpu_second):
        for pair in ((value, 1.0), (1.0, value)):
            with pytest.raises(ConfigError, match="accepted: 0 or more"):
                each(*pair)
    with pytest.raises(ConfigError, match="capacity_per_s"):
        cost.per_million(value, 1)


@given(st.sampled_from([0.0, math.nan]), AMOUNTS)
def test_what_is_not_known_is_nan_never_infinite_or_free(nothing: float, amount: float) -> None:
    assert math.isnan(cost.per_million(nothing, amount))
    assert math.isnan(cost.per_core(amount, nothing))
    assert math.isnan(cost.per_gb(amount, nothing))
    assert math.isnan(cost.per_cpu_second(amount, nothing))


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), max_size=5), PRICES)
def test_the_table_is_the_functions_row_by_row(rows: list[tuple[float, float, float]], price: float) -> None:
    cases = pd.DataFrame(rows, columns=["capacity_per_s", "cores", "rss_peak_bytes"])
    table = cost.table(cases, price)
    assert len(table) == len(rows)
    for (rate, cores, memory), row in zip(rows, table.to_dict("records"), strict=True):
        assert row["per_core"] == cost.per_core(rate, cores)
        assert row["per_gb"] == cost.per_gb(rate, memory)
        assert row["per_cpu_second"] == pytest.approx(row["per_core"])
        assert row["cost_per_million"] == cost.per_million(rate, price)


def test_a_measured_cpu_of_a_request_is_taken() -> None:
    cases = pd.DataFrame(
        {"capacity_per_s": [100.0], "cores": [2.0], "rss_peak_bytes": [1e9], "cpu_us_per_request": [500.0]}
    )
    assert cost.table(cases, 1.0)["per_cpu_second"].iloc[0] == pytest.approx(2000)


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="lack the columns cores, rss_peak_bytes"):
        cost.table(pd.DataFrame({"capacity_per_s": [1.0]}), 1.0)
