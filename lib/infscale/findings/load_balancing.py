"""Load balancing (F4): which balancer shares requests evenly, over how many connections, and what does it gain?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from infscale.analysis.queueing.scaling import jain, usl
from infscale.analysis.tables import Tables
from infscale.analysis.tables.points import FEW
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import balancer
from infscale.findings.finding import Blocks, Finding, compared
from infscale.records.gate import INVALID
from infscale.records.runs import Run
from infscale.report.figures.arms import balancing as drawing
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.picture import Picture
from infscale.vocabulary import CONNECTIONS, NAMES, number

BALANCERS = (
    ("envoy-l4", ""),
    ("envoy-round-robin", ""),
    ("envoy-least-request", ""),
    ("nginx", ""),
    ("client", "round_robin"),
    ("client", "power_of_two"),
)
"""A balancer of :mod:`infscale.deployment.fronts.replicas`, and the client's own choice."""

SLOW_MS = 20.0
"""By how much one replica is simulated to be slower, ms."""

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return two replicas behind balancers, by connections; more replicas, balancers and REST for "full"."""
    one = _arm("grpc", 1, "none")
    few, many = (_arm("grpc", 2, "envoy-l4", connections=count) for count in (1, 8))
    if profile == "tiny":
        return [[one, few]]
    if profile == "quick":
        in_turn = _arm("grpc", 2, "envoy-round-robin", connections=1)
        by_client = _arm("grpc", 2, "client", pick="power_of_two")
        slow = _arm("grpc", 2, "envoy-least-request", slow_ms=SLOW_MS)
        return [[one, few, many, in_turn, by_client, slow]]
    return [list(_every(protocol)) for protocol in ("rest", "grpc")]


def _every(protocol: str) -> Iterator[Arm]:
    yield _arm(protocol, 1, "none")
    for name, pick in BALANCERS:
        for replicas in (2, 4):
            yield _arm(protocol, replicas, name, pick=pick)
        yield _arm(protocol, 2, name, pick=pick, slow_ms=SLOW_MS)
    for name in ("envoy-l4", "envoy-round-robin"):
        yield _arm(protocol, 2, name, connections=1)
        yield _arm(protocol, 2, name, reuse=False)


def _arm(
    protocol: str,
    replicas: int,
    balancer_name: str,
    *,
    pick: str = "",
    connections: int = 0,
    reuse: bool = True,
    slow_ms: float = 0.0,
) -> Arm:
    return Arm(
        protocol,
        connections=connections,
        pick=pick,
        reuse=reuse,
        framework="triton",
        model="cnn",
        front="balanced",
        replicas=replicas,
        balancer=balancer_name,
        slow_ms=slow_ms,
    )


# -------------------------------------------------------------------------------------------- answer


def balancing_table(run: Run, tables: Tables) -> pd.DataFrame:
    """Return one row per arm that has a balancer or one replica: what the figure draws, and ``jain`` and ``p99_ms``.

    Columns: ``run_id``, ``arm``, ``label``; ``balancer``, in words, "none" for a server alone; ``protocol``,
    ``replicas``, ``slow``; ``scaling``: whether the arm shows what each further replica adds (all alike, and default
    connections); ``shares``: requests that each replica answered, over the trials at set rates; ``jain``: the
    mean over those trials of Jain's index; ``p99_ms``; λ* and its interval, NaN where it has no bracket.
    """
    rows = [
        _row(run, tables, summary)
        for summary in tables.summary.to_dict("records")
        if run.manifest.design.arms[summary["arm"]].front == "balanced"
    ]
    return pd.DataFrame(rows)


def _row(run: Run, tables: Tables, summary: dict[object, object]) -> dict[str, object]:
    arm, arm_number = run.manifest.design.arms[int(str(summary["arm"]))], int(str(summary["arm"]))
    each = _shares(run, tables, arm_number)
    # Which replica is the busy one changes from start to start: summed as they are, 100/0 and 0/100 look even.
    ranked = each if arm.slow_ms else [sorted(shares, reverse=True) for shares in each]
    return {
        "run_id": run.id,
        "arm": arm_number,
        "label": run.labels[arm_number],
        "balancer": balancer(arm) or "none",
        "protocol": arm.protocol,
        "replicas": arm.replicas,
        "slow": bool(arm.slow_ms),
        "scaling": not arm.slow_ms and arm.reuse and arm.connections in (0, CONNECTIONS[arm.protocol]),
        "shares": [float(sum(column)) for column in zip(*ranked, strict=True)],
        "jain": float(np.mean([jain(shares) for shares in each])) if each else float("nan"),
        "p99_ms": summary["response_p99_ms"],
        "saturation_per_s": summary["saturation_per_s"] if summary["bound"] == "" else float("nan"),
        "low_per_s": summary["low_per_s"],
        "high_per_s": summary["high_per_s"],
    }


def _shares(run: Run, tables: Tables, arm: int) -> list[list[float]]:
    """Return the requests that each replica answered in each trial at a set rate; none where one does not tell."""
    trials = tables.trials[tables.trials["arm"] == arm]
    sound = set(trials.loc[(trials["phase"] == "grid") & (trials["verdict"] != INVALID), "trial_id"])
    each = [trial.manifest.shares for trial in run.trials if trial.manifest.trial_id in sound and trial.manifest.shares]
    if any(share is None for shares in each for share in shares):
        return []
    return [[share for share in shares if share is not None] for shares in each]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the share of each replica with Jain's index and p99, and on the scalability law."""
    table = balancing_table(run, tables)
    if table.empty:
        return compared(run, tables)
    shares = [
        f"{row['label']}: the replicas{'' if row['slow'] else ', the busiest first,'} answered "
        f"{_percentages(row['shares'])} of the requests (Jain's index {number(row['jain'])}, mean over trials); the "
        f"p99 response time {_p99(row['p99_ms'])}."
        for _, row in table.iterrows()
        if row["shares"]
    ]
    return [*shares, *_laws(table), *compared(run, tables)]


def _p99(value: float) -> str:
    return f"was {number(value)} ms" if np.isfinite(value) else f"is withheld ({FEW})"


def _laws(table: pd.DataFrame) -> list[str]:
    """Return the Universal Scalability Law of each protocol and balancer with three numbers of replicas or more."""
    sentences = []
    whole = table[table["scaling"] & np.isfinite(table["saturation_per_s"])]
    for (protocol, name), own in whole.groupby(["protocol", "balancer"], sort=False):
        alone = whole[(whole["balancer"] == "none") & (whole["protocol"] == protocol)]
        line = pd.concat([own, alone]).drop_duplicates("replicas")
        if len(line) > 2:
            law = usl(line["replicas"].tolist(), line["saturation_per_s"].tolist())
            note = f" ({law.note})" if law.note else ""
            sentences.append(
                f"{NAMES[str(protocol)]}, {name}: by the Universal Scalability Law the contention (the share of the "
                f"work that replicas cannot do at the same time) is {number(law.contention)} and the coherence (what "
                f"each pair of replicas costs by having to agree) is {number(law.coherence)}{note}."
            )
    return sentences


def _percentages(shares: list[float]) -> str:
    whole = sum(shares)
    return " / ".join(f"{100 * (share / whole):.0f} %" for share in shares) if whole else "none"


SHARES = Picture("shares", balancing_table, drawing.draw, lambda _, __: drawing.CAPTION, drawing.ALTERNATIVE)

FINDING = Finding(
    name="load-balancing",
    question="Who gets the requests: which balancer shares them evenly, over how many connections, and what does it "
    "gain?",
    blocks=blocks,
    answer=answer,
    pictures=(SUMMARY, SHARES),
    notebook="15-load-balancing",
)
