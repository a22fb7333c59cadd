"""Service-level objectives: a percentile of the response time and its limit, written as ``p99<50ms``."""

import re

import msgspec

from infscale.errors import ConfigError

PERCENTILES = ("p50", "p90", "p95", "p99")
"""Percentiles that can have a limit."""

UNITS_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
"""Units of a limit, ms."""


SCOUT_LATE = 10
"""Late requests that a short trial at the limit expects."""


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit of a percentile of the response time, from the scheduled time.

    Attributes:
        percentile: one of :data:`PERCENTILES`.
        limit_ms: what the percentile must not exceed, ms.
    """

    percentile: str
    limit_ms: float

    @property
    def late(self) -> float:
        """Return the largest share of late requests that keeps the limit: 0.01 for p99."""
        return 1 - int(self.percentile[1:]) / 100

    def __str__(self) -> str:
        return f"{self.percentile}<{self.limit_ms:g}ms"


def parse(text: str, name: str = "slo") -> Slo:
    """Return the objective that ``p99<50ms``, ``p95<0.2s`` or ``p50<=800us`` writes.

    Raises:
        ConfigError: it is none; ``name`` says whose value it is.
    """
    match = re.fullmatch(r"\s*(p[0-9]+)\s*<=?\s*([0-9]+(?:\.[0-9]+)?)\s*(us|µs|ms|s)\s*", text)
    if match is None or match[1] not in PERCENTILES or float(match[2]) <= 0:
        forms = (
            f"{', '.join(PERCENTILES[:-1])} or {PERCENTILES[-1]}, < and a time above 0 in s, ms or us, as 'p99<50ms'"
        )
        raise ConfigError(f"{name}={text!r} is no limit of a percentile; accepted: {forms}")
    return Slo(match[1], float(match[2]) * UNITS_MS[match[3]])
