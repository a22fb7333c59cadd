"""If these fail, a run that was killed is lost, holds a trial twice, or leaves servers and folders behind."""

import pytest
from benchmarks.kills import survive


@pytest.mark.timeout(1800)  # beside other tests a start takes its time, and there are a dozen of them
@pytest.mark.server
def test_a_run_that_is_killed_ten_times_at_random_moments_is_whole_in_the_end() -> None:
    """``python -m benchmarks.kills`` does it fifty times."""
    lines: list[str] = []
    assert survive(10, seed=20, say=lines.append) == [], "\n".join(lines)
    assert any(line.startswith("kill") and ": 0 trials" not in line and "no run" not in line for line in lines)
