"""Costs of a deployment: requests per core, per GB of memory and per CPU-second, and the price of a million requests.

Pure functions of measured numbers.
"""

import math

import pandas as pd

from infscale.errors import ConfigError

GB = 1e9


def per_core(capacity_per_s: float, cores: float) -> float:
    """Return requests per second and core: λ* ÷ the cores used at λ*.

    NaN where either is not known, or no core was used.

    Raises:
        ConfigError: a value is negative or infinite.
    """
    return _ratio(_amount("capacity_per_s", capacity_per_s), _amount("cores", cores))


def per_gb(capacity_per_s: float, rss_peak_bytes: float) -> float:
    """Return requests per second and GB (10⁹ bytes): λ* ÷ the peak of resident memory.

    NaN where either is not known, or no memory was used.

    Raises:
        ConfigError: a value is negative or infinite.
    """
    return _ratio(_amount("capacity_per_s", capacity_per_s), _amount("rss_peak_bytes", rss_peak_bytes) / GB)


def per_cpu_second(requests: float, cpu_s: float) -> float:
    """Return requests per CPU-second: those that succeeded ÷ CPU seconds, user and system, in the same time.

    Raises:
        ConfigError: a value is negative or infinite.
    """
    return _ratio(_amount("requests", requests), _amount("cpu_s", cpu_s))


def per_million(capacity_per_s: float, price_per_hour: float) -> float:
    """Return the cost of a million requests on a machine that runs at its saturation rate all the time.

    price_per_hour ÷ (λ* × 3600) × 10⁶, in the price's currency: a lower bound, as no service runs at λ* all day. NaN
    where λ* is not known or 0.

    Raises:
        ConfigError: a price that is negative or no number; a capacity that is negative or infinite.
    """
    price = _price("price_per_hour", price_per_hour)
    return _ratio(price * 1e6, _amount("capacity_per_s", capacity_per_s) * 3600)


def table(arms: pd.DataFrame, price_per_hour: float) -> pd.DataFrame:
    """Return ``arms`` with the columns ``per_core``, ``per_gb``, ``per_cpu_second`` and ``cost_per_million``.

    Requests per CPU-second are those per core at λ*, since λ* requests/s on c cores spend c CPU-seconds a second; where
    ``arms`` has ``cpu_us_per_request``, they are computed from that.

    Args:
        arms: one row an arm: ``capacity_per_s`` (λ*), and at that rate ``cores`` and ``rss_peak_bytes`` of all
            processes of the deployment.
        price_per_hour: of the machine, in any currency.

    Raises:
        ConfigError: a column is missing, or a value is one that no price or amount can have.
    """
    needed = ("capacity_per_s", "cores", "rss_peak_bytes")
    if missing := [name for name in needed if name not in arms]:
        raise ConfigError(f"arms lack the columns {', '.join(missing)}; needed: {', '.join(needed)}")
    _price("price_per_hour", price_per_hour)
    capacity, cores, memory = (arms[name].astype(float) for name in needed)
    return arms.assign(
        per_core=[per_core(*pair) for pair in zip(capacity, cores, strict=True)],
        per_gb=[per_gb(*pair) for pair in zip(capacity, memory, strict=True)],
        per_cpu_second=[per_cpu_second(1e6, micros) for micros in _micros(arms)],
        cost_per_million=[per_million(rate, price_per_hour) for rate in capacity],
    )


def _micros(arms: pd.DataFrame) -> list[float]:
    """Return the CPU of a request, µs; NaN where it is not known."""
    if "cpu_us_per_request" in arms:
        return [float(value) for value in arms["cpu_us_per_request"]]
    return [1e6 * _ratio(*pair) for pair in zip(arms["cores"], arms["capacity_per_s"], strict=True)]


def _price(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name}={value} is not a price; accepted: 0 or more")
    return float(value)


def _amount(name: str, value: float) -> float:
    """Return an amount; NaN, which tables hold where nothing is known, is one.

    Raises:
        ConfigError: it is negative or infinite.
    """
    if value < 0 or math.isinf(value):
        raise ConfigError(f"{name}={value} is not an amount; accepted: 0 or more (NaN: not known)")
    return float(value)


def _ratio(over: float, under: float) -> float:
    """Return a ratio; NaN where nothing was used, or where a float cannot hold it."""
    ratio = over / under if under > 0 else math.nan
    return ratio if math.isfinite(ratio) else math.nan
