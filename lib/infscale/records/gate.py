"""Gates and verdicts: rules applied to one trial, and what they decide."""

import msgspec
import numpy as np
from numpy.typing import NDArray

INVALID, SATURATED, UNSTEADY, VALID = "INVALID", "SATURATED", "UNSTEADY", "VALID"

COALESCED = "coalesced"
"""Name of the gate of streams whose messages arrived together."""

IMPORTED = "imported"
"""Name of the gate of trials that another tool made: which of the other gates its file says nothing of."""

REMARKS = (COALESCED, IMPORTED)
"""Names of gates that decide no verdict: what they find is of the path, or of what is known, and is said beside it."""

Floats = NDArray[np.float64]


class Gate(msgspec.Struct, frozen=True):
    """One rule applied to one trial.

    Attributes:
        name: of the rule.
        passed: whether the trial is within the limit.
        value: what was measured; None where the machine or the trial offers nothing to measure.
        limit: what is allowed, in the unit of ``value``.
        text: a sentence with both.
    """

    name: str
    passed: bool
    value: float | None
    limit: float
    text: str


class Verdict(msgspec.Struct, frozen=True):
    """What the gates decide about one trial.

    Attributes:
        name: :data:`VALID`, :data:`UNSTEADY`, :data:`SATURATED` or :data:`INVALID`.
        reasons: the names of the gates that decided it.
        gates: every gate.
        errors: how many requests ended in each status other than "ok".
    """

    name: str
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    errors: dict[str, int]

    @property
    def failed(self) -> set[str]:
        """The names of the gates that were not passed, remarks left out."""
        return {gate.name for gate in self.gates if not gate.passed and gate.name not in REMARKS}

    @property
    def remarks(self) -> tuple[Gate, ...]:
        """The gates of :data:`REMARKS` that were not passed."""
        return tuple(gate for gate in self.gates if not gate.passed and gate.name in REMARKS)

    @property
    def cut(self) -> bool:
        """Whether nothing speaks for saturation but requests that ended with their connection, or got none."""
        failed = self.failed
        return (
            "errors" in failed and not failed & {"in_flight", "response"} and set(self.errors) <= {"reset", "refused"}
        )

    @property
    def text(self) -> str:
        """The verdict and the sentence of every gate that decided it, then those of the remarks."""
        deciding = (gate.text for gate in self.gates if gate.name in self.reasons)
        return "; ".join([self.name, *deciding, *(gate.text for gate in self.remarks)])

    @property
    def short(self) -> str:
        """The verdict, and the names of the gates that decided it in brackets; then the names of the remarks."""
        decided = f"{self.name} ({', '.join(self.reasons)})" if self.reasons else self.name
        return ", ".join([decided, *(gate.name for gate in self.remarks)])
