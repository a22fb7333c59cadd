"""A gate: one rule applied to one trial."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INVALID, SATURATED, VALID = "INVALID", "SATURATED", "VALID"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """One rule applied to one trial: what was found (``value``), what is allowed (``limit``), and a sentence.

    ``value`` is NaN where the machine or the trial offers nothing to measure; the sentence says so.
    """

    name: str
    passed: bool
    value: float
    limit: float
    text: str


def _failed(gates: Iterable[Gate]) -> tuple[str, ...]:
    """The names of the gates that were not passed."""
    return tuple(gate.name for gate in gates if not gate.passed)
