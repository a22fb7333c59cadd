"""Late requests: those that have not succeeded by their scheduled time plus a limit."""

import pandas as pd

from infscale.records.gates.server import FIRST_PART


def late_share(samples: pd.DataFrame, limit_ms: float, duration_s: float) -> float:
    """Return the share of late requests of a trial, after its first 10 %; failures and timeouts are late.

    NaN of a trial without a request there.
    """
    counted = samples[samples["scheduled_ns"] >= FIRST_PART * duration_s * 1e9]
    in_time = (counted["status"] == "ok") & (counted["done_ns"] - counted["scheduled_ns"] <= limit_ms * 1e6)
    return float(1 - in_time.mean()) if len(counted) else float("nan")
