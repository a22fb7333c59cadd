"""Queueing models fitted to the mean response times of each arm."""

import numpy as np
import pandas as pd

from infscale.analysis.queueing.queues import MODELS, fit
from infscale.analysis.tables.trials import Row, identified
from infscale.records.gate import VALID

FIT_COLUMNS = ["queue", "points", "t_ms", "s_ms", "cv2", "misfit", "limit_per_s", "to_per_s"]
"""The columns of :func:`fits_table` beside those that identify the arm."""


def fits_table(points: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm and queue of :mod:`infscale.analysis.queueing.queues`, fitted to VALID points below λ*.

    ``limit_per_s`` is 1 ÷ S; ``to_per_s`` the largest rate that was fitted to.
    """
    merged = points.merge(arms[["arm", "saturation_per_s"]], on="arm")
    usable = (merged["verdict"] == VALID) & np.isfinite(merged["response_mean_ms"])
    usable &= ~merged["closed"].astype(bool)  # whose arrivals are no Poisson process
    below = merged[usable & ~(merged["rate_per_s"] > merged["saturation_per_s"])]
    rows: list[Row] = []
    for arm, group in below.groupby("arm"):
        rates, means = group["rate_per_s"].to_numpy(dtype=float), group["response_mean_ms"].to_numpy(dtype=float)
        for queue in MODELS:
            fitted = fit(queue, rates, means)
            numbers = {**fitted, "limit_per_s": 1e3 / fitted["s_ms"], "to_per_s": float(rates.max())}
            rows.append({"arm": arm, "queue": queue, "points": len(group), **numbers})
    table = pd.DataFrame(rows, columns=["arm", *FIT_COLUMNS])
    return identified(table.astype({"arm": int} | dict.fromkeys(FIT_COLUMNS[1:], float)), points)
