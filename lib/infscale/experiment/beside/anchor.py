"""The anchor: one arm that every run measures in the same way, so that sessions and machines can be compared.

It is Triton over gRPC with one row of the reference model, far below its limit, for a few seconds.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infscale.errors import DeploymentError, MissingError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.live.view import View
from infscale.experiment.trial import Plan
from infscale.records.manifest import Anchor

ARM = Arm("grpc", framework="triton", model="mlp")

RATE = 400.0
"""λ, requests/s: about a tenth of what two cores take."""

TRIALS, TRIAL_S, SEED = 3, 1.0, 20
"""Number and length (s) of its trials, after one that warms the server; and the seed of their arrivals, which are the
same in every session."""


def measure(
    start: Callable[..., Any], log_folder: Path, pid_log: Path, say: Callable[[str], None], view: View | None = None
) -> Anchor | None:
    """Return what this machine does with the anchor now; None where its server cannot be had.

    Args:
        start: starts a server, as :func:`infscale.deployment.deploy` does.
        log_folder, pid_log: where the server logs, and where its processes are noted.
        say: gets a line about it.
        view: shows its trials; None for a view of each.

    Raises:
        KeyboardInterrupt: asked to stop meanwhile.
    """
    with contextlib.suppress(MissingError, DeploymentError):
        with start(ARM.framework, ARM.model, log_folder=log_folder, pid_log=pid_log) as endpoint:
            plans = [Plan(ARM, RATE, TRIAL_S, 1.0, SEED, (97, k)) for k in range(TRIALS + 1)]
            done = [trial.run(endpoint, plan, view=view) for plan in plans][1:]
        rows = pd.concat([one.samples for one in done])
        good = rows[rows["status"] == "ok"]
        if len(good):
            ms = (good["done_ns"] - good["scheduled_ns"]).to_numpy() / 1e6
            p50, p95 = (round(float(np.quantile(ms, q)), 4) for q in (0.5, 0.95))
            say(f"the anchor (Triton, gRPC, 1 row, {RATE:g}/s): p50 {p50:.2f} ms, p95 {p95:.2f} ms")
            return Anchor(
                rate_per_s=RATE,
                requests=len(good),
                response_p50_ms=p50,
                response_p95_ms=p95,
                verdicts=[one.verdict for one in done],
            )
    say("the anchor could not be measured: Triton is not here, or did not answer")
    return None
