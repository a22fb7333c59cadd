"""Tables of trials made up for tests, as :mod:`infscale.analysis.tables` takes them. Nothing here was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.synthetic_run import TORCHSERVE
from infscale.analysis.tables.trials import METRICS, WITHHELD, factors
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import labels
from infscale.records.gate import VALID

ARMS = (Arm("rest", "json", framework="torchserve"), Arm("grpc", "raw", framework="torchserve"))
"""REST and gRPC on one framework: arms 0 and 1, compared with arm 1."""


def identity(arms: Sequence[Arm] = ARMS, reference: int = -1) -> dict[int, dict[str, Any]]:
    """The columns that identify each arm, by its number; all arms are of the block of one."""
    block = reference % len(arms)
    return {
        number: {
            "run_id": "r",
            "arm": number,
            "block": block,
            "label": label,
            "system": "TorchServe",
            "implementation": TORCHSERVE,
            **factors(arm),
        }
        for number, (arm, label) in enumerate(zip(arms, labels(arms), strict=True))
    }


def rows_of(
    arms: Sequence[Arm] = ARMS,
    rates: Sequence[float] = (100.0, 200.0, 400.0),
    replicates: int = 3,
    reference: int = -1,
    **changes: Any,
) -> pd.DataFrame:
    """Trials as ``trials_table`` returns them: each arm at each rate, in each replicate, VALID and equally fast."""
    base: dict[str, Any] = {
        "phase": "grid",
        "attempt": 1,
        "verdict": VALID,
        "reasons": "",
        "scheduled": 1000,
        "n": 1000,
        "failed": 0,
        "bytes_out": 3200.0,
        "bytes_in": 100.0,
        "hit_ratio": float("nan"),
        "engine_cpu_us_per_request": 50.0,
        "lag_p50_ms": 0.1,
        "lag_p99_ms": 0.2,
        "steady": True,
        "slo_passed": True,
        "dispersion_difference": 0.01,
        "gaps_distance": 0.02,
    }
    rows = []
    for identifier in identity(arms, reference).values():
        for rate in rates:
            for replicate in range(replicates):
                row = {**identifier, **base, "rate_per_s": rate, "replicate": replicate}
                row |= dict.fromkeys(("offered_per_s", "achieved_per_s", "goodput_per_s", "finished_per_s"), rate)
                row |= dict.fromkeys(WITHHELD, 2.0 + 0.1 * replicate)
                row |= {f"{name}_bound": False for name in METRICS}
                rows.append(row | changes)
    return pd.DataFrame(rows).assign(trial_id=[f"t{k}" for k in range(len(rows))])


def put(trials: pd.DataFrame, where: str, **values: Any) -> pd.DataFrame:
    """The trials with some values changed in the rows that a query selects; a query that selects none is a mistake."""
    changed = trials.copy()
    index = changed.query(where).index
    assert len(index)
    for name, value in values.items():
        changed.loc[index, name] = value
    return changed


def row_of(table: pd.DataFrame, **where: Any) -> Any:
    """The only row in which these columns have these values."""
    chosen = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def verdicts_of(letters: Mapping[int, str], values: Mapping[int, float]) -> pd.DataFrame:
    """Trials of arms at one rate: a letter for each replicate's verdict (V, S, I), and each arm's p95 in ms.

    The p95 rises by 1 ms with each replicate.
    """
    words = {"V": VALID, "S": "SATURATED", "I": "INVALID"}
    arms = [Arm("rest", "json", batch=1 + number, framework="torchserve") for number in letters]
    trials = rows_of(arms, (100.0,), max(map(len, letters.values())), reference=0)
    trials["verdict"] = [words[letters[arm][r]] for arm, r in zip(trials["arm"], trials["replicate"], strict=True)]
    return trials.assign(response_p95_ms=trials["arm"].map(values) + trials["replicate"])
