"""The verdict of a trial: may its numbers be believed, and did the server keep up?

Every gate is a pure function of the samples table and of values in the trial's manifest. A verdict is

- ``INVALID`` when the generator or the host failed: the numbers say nothing about the server;
- ``SATURATED`` when the generator was sound and the server did not keep up: a finding, not a failure;
- ``VALID`` otherwise.

The order matters: a generator that cannot keep up looks just like a server that cannot.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from infscale.records.gate import INVALID, SATURATED, VALID, Gate, _failed
from infscale.records.generator_gates import (
    _of_a_client,
    arrivals,
    ceiling,
    delivered,
    engine_cpu,
    host,
    lag,
    run_delay,
)
from infscale.records.server_gates import saturated


@dataclass(frozen=True)
class Verdict:
    """``verdict`` with the names of the gates that decided it, every gate, and the errors by kind."""

    verdict: str
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    errors: dict[str, int]

    @property
    def text(self) -> str:
        """The verdict and the sentence of every gate that decided it."""
        causes = [gate.text for gate in self.gates if gate.name in self.reasons]
        return "; ".join([self.verdict, *causes])

    def as_dict(self) -> dict[str, Any]:
        """A form for JSON: numbers that are not finite become ``None``."""
        value = asdict(self)
        value["reasons"] = list(self.reasons)
        value["gates"] = [{k: _jsonable(v) for k, v in asdict(gate).items()} for gate in self.gates]
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict` (``None`` becomes NaN)."""
        gates = tuple(
            Gate(g["name"], g["passed"], _number(g["value"]), _number(g["limit"]), g["text"]) for g in value["gates"]
        )
        return cls(value["verdict"], tuple(value["reasons"]), gates, dict(value["errors"]))


def judge(samples: pd.DataFrame, manifest: Mapping[str, Any], trials_of_grid: int) -> Verdict:
    """Give one trial its verdict.

    Args:
        samples: the trial's rows (``infscale.records.samples``), in any order.
        manifest: the trial's manifest; read are ``duration_s``, ``engine`` (``cpu_s``, ``wall_s``,
            ``run_delay_s``), ``host`` (``steal_fraction``, ``loadavg_1m``, ``same_host``) and, where they are known,
            ``rate_per_s`` and ``ceiling_per_s``.
        trials_of_grid: how many trials the whole grid plans; the growth rule shares its false alarms over them.
    """
    duration_ns = manifest["duration_s"] * 1e9
    generator = [
        delivered(samples, duration_ns),
        lag(samples),
        arrivals(samples, duration_ns),
        engine_cpu(manifest["engine"]),
        run_delay(manifest["engine"]),
        ceiling(manifest),
        host(manifest["host"]),
    ]
    server: list[Gate] = [*saturated(samples, duration_ns, trials_of_grid)]
    if (manifest.get("arm") or {}).get("client", "wire") != "wire":
        generator, server = _of_a_client(generator, server)
    verdict, reasons = VALID, _failed(server)
    if reasons:
        verdict = SATURATED
    if _failed(generator):
        verdict, reasons = INVALID, _failed(generator)
    return Verdict(verdict, reasons, (*generator, *server), errors_by_kind(samples))


def errors_by_kind(samples: pd.DataFrame) -> dict[str, int]:
    """How many rows ended in each status other than ``ok``, most frequent first."""
    counts = samples["status"].value_counts()  # of a categorical column, in one pass
    return {str(kind): int(n) for kind, n in counts.items() if kind != "ok" and n > 0}


# ------------------------------------------------------------------------ the generator and the host


# ----------------------------------------------------------------------------------------- the server


# --------------------------------------------------------------------------------------------- helpers


def _number(value: float | None) -> float:
    """The inverse of :func:`_jsonable`."""
    return float("nan") if value is None else value


def _jsonable(value: Any) -> Any:
    """``None`` for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
