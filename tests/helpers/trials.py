"""Trials on real servers, judged without what only a quiet machine could give."""

from collections.abc import Callable

import pytest

from infscale.experiment.trial import Outcome

MACHINE = {"host", "lag", "run_delay", "arrivals", "enough"}
"""Gates that a busy machine fails, whatever is measured, and that which the short trials of tests fail."""


def sound(run: Callable[[int], Outcome], attempts: int = 6) -> Outcome:
    """Return the first of some trials that is VALID, or INVALID by gates of :data:`MACHINE` alone.

    ``run`` gets the number of the attempt. A test that has no such trial after ``attempts`` fails with the reasons.
    """
    reasons = []
    for attempt in range(attempts):
        outcome = run(attempt)
        failed = {gate.name for gate in outcome.manifest.judged.gates if not gate.passed}
        if failed <= MACHINE:
            return outcome
        reasons.append(", ".join(sorted(failed)))
    pytest.fail(f"no sound trial in {attempts} attempts; gates that failed: {'; '.join(reasons)}")
