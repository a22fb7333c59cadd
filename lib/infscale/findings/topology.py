"""What the findings on caching and load balancing say."""

from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.scaling import jain, usl
from infscale.analysis.tables.saturation import INTERVAL, capacity_ratio, replicate_brackets
from infscale.findings.cases import BALANCERS
from infscale.findings.ratios import Tables, capacities_told, column, prefixes, ratio, told
from infscale.records.gate import INVALID
from infscale.records.runs import Run
from infscale.report.figures.rates import NAMES
from infscale.vocabulary import CANNOT, CONNECTIONS, number


def caching(run: Run, tables: Tables) -> list[str]:
    """The hit ratio and the gain of every cache, and the fraction of repeats from which it gains."""
    sentences = []
    for prefix in prefixes(tables, "no cache"):
        for where in ("gateway", "in the server"):
            sentences += _cache(tables, prefix, where)
    return sentences + _staleness(run.manifest.get("staleness", {}))


def _staleness(found: dict[str, dict[str, int]]) -> list[str]:
    """What a cache answered after the model behind it was swapped."""
    return [
        f"After a model swap behind a warm cache {row['stale']} of {row['asked']} answers were the old model's {when}."
        for when, row in found.items()
    ]


def _cache(tables: Tables, prefix: str, where: str) -> list[str]:
    gains = gain_by_repeat(tables, prefix, where)
    if gains.empty:
        return []
    parts = [
        f"at {row['repeat']:.0%} repeats (hit ratio {number(row['hit_ratio'])}) capacity is "
        f"{capacities_told(row['gain'])} times"
        for _, row in gains.iterrows()
    ]
    price = _price(tables, f"{prefix}no cache", str(gains["label"].iloc[0])) if gains["repeat"].iloc[0] == 0 else ""
    return [f"{prefix}{where}: {'; '.join(parts)} that without a cache. {break_even(gains)}{price}"]


def _price(tables: Tables, without: str, never_hit: str) -> str:
    """What a cache costs where nothing repeats: time, CPU and memory."""
    slower = ratio(tables["trials"], never_hit, without, "response_p50_ms")
    own, usage = column(tables, "cpu_us_gateway").get(never_hit, float("nan")), tables["usage"]
    memory = usage[(usage["label"] == never_hit) & (usage["group"] == "gateway")]["rss_bytes"].max()
    parts = [f"a median response time of {told(slower)} times"]
    parts += [f"{number(own)} µs of the gateway's CPU a request"] if np.isfinite(own) else []
    parts += [f"{number(memory / 1e6)} MB of memory"] if np.isfinite(memory) else []
    return f" Where nothing repeats it has {', '.join(parts)}."


def gain_by_repeat(tables: Tables, prefix: str, where: str) -> pd.DataFrame:
    """Capacity with a cache ÷ without: columns ``label``, ``repeat``, ``hit_ratio``, ``gain`` (an interval)."""
    brackets, hits = replicate_brackets(tables["trials"]), column(tables, "hit_ratio")
    rows = []
    for name in hits:
        found = name.removeprefix(f"{prefix}{where}, ")
        if found != name and found.endswith("% repeat"):
            share = float(found.removesuffix("% repeat")) / 100
            gain = capacity_ratio(brackets, name, f"{prefix}no cache")
            rows.append({"label": name, "repeat": share, "hit_ratio": hits[name], "gain": gain})
    return pd.DataFrame(rows).sort_values("repeat") if rows else pd.DataFrame()


def break_even(gains: pd.DataFrame) -> str:
    """From which fraction of repeats a cache gains, by the time per request, which falls in proportion to hits."""
    known = gains[[bool(np.isfinite([gain.low, gain.high]).all()) for gain in gains["gain"]]]
    if len(known) < 2:
        return f"Break-even: {CANNOT}."
    share = known["repeat"].to_numpy(dtype=float)
    ends = []
    for end in ("low", "value", "high"):
        lost = np.array([1 / getattr(gain, end) - 1 for gain in known["gain"]])
        ends.append(_crossing(share, lost))
    late, middle, early = ends
    least = f"at or below {share[0]:.0%}" if share[0] > 0 else "about 0%"  # of less, nothing is known
    if share[0] > 0 and late == 0:
        return f"Break-even: {least} of repeats, the least with an interval."
    if np.isinf(early):
        return "It does not break even at any fraction tried."
    if np.isinf(middle):
        known_end = f" (by the ends of the intervals: not before {early:.0%} of repeats)" if early else ""
        return f"Break-even: {CANNOT}{known_end}."
    low, value = (least if end == 0 else f"about {end:.0%}" for end in (early, middle))
    interval = f"{low.removeprefix('about ')} to {'more than was tried' if not np.isfinite(late) else f'{late:.0%}'}"
    return f"It breaks even at {value.removeprefix('at ')} of repeats (by the ends of the intervals: {interval})."


def _crossing(share: Any, lost: Any) -> float:
    """Where ``lost`` falls to 0: 0 if it never was above, ∞ if it does not within ``share``."""
    if not np.isfinite(lost).all():
        return float("nan")
    if lost[0] <= 0:
        return 0.0
    below = np.flatnonzero(lost <= 0)
    if not below.size:
        return float("inf")
    k = int(below[0])
    return float(share[k - 1] + (share[k] - share[k - 1]) * lost[k - 1] / (lost[k - 1] - lost[k]))


def balancing_table(run: Run, tables: Tables) -> pd.DataFrame:
    """One row per case: what :func:`infscale.report.figures.balancing.balancing` draws, and ``jain``, ``p99_ms``."""
    labels = run.case_labels()
    every = {labels[c["name"]]: c for c in run.manifest["config"]["cases"] if c["name"] in labels}
    points = tables["points"].set_index("label")["response_p99_ms"]
    rows = []
    for _, row in tables["cases"].iterrows():
        options, arm = dict(every[row["label"]]["options"]), every[row["label"]]["arm"]
        slow, each = bool(options.get("slow_ms")), _shares(run, str(row["label"]))
        # Which replica is the busy one changes from start to start: summed as they are, 100/0 and 0/100 look even.
        ranked = each if slow else [sorted(shares, reverse=True) for shares in each]
        rows.append(
            {
                "label": row["label"],
                "balancer": _WAYS.get((options["balancer"], arm.get("pick", "")), options["balancer"]),
                "replicas": options["replicas"],
                "slow": slow,
                "scaling": not slow and arm["reuse"] and arm["connections"] in (0, CONNECTIONS[arm["protocol"]]),
                "shares": [float(sum(column)) for column in zip(*ranked, strict=True)],
                "jain": float(np.mean([jain(shares) for shares in each])) if each else float("nan"),
                "p99_ms": float(points.get(row["label"], float("nan"))),
                "protocol": arm["protocol"],
                **{name: row[name] for name in INTERVAL[:2]},
                "saturation_per_s": row["saturation_per_s"] if row["bound"] == "" else float("nan"),
            }
        )
    return pd.DataFrame(rows)


_WAYS = {way: name for name, way in BALANCERS.items()}
"""What a reader calls a balancer: the client's two ways to choose are two."""


def _shares(run: Run, label: str) -> list[list[float]]:
    """Requests that each replica answered in each trial at the common rate; none where a replica does not tell."""
    told = [
        trial.manifest["shares"]
        for trial in run.trials
        if run.label_of(trial.manifest) == label
        and trial.manifest["phase"] == "grid"
        and trial.manifest.get("shares")
        and trial.manifest["verdict"]["verdict"] != INVALID
    ]
    return [] if any(share is None for shares in told for share in shares) else told


def load_balancing(run: Run, tables: Tables) -> list[str]:
    """The share of each replica with Jain's index and p99, and the scalability law over replicas."""
    table = balancing_table(run, tables)
    sentences = [
        f"{row['label']}: the replicas{'' if row['slow'] else ', the busiest first,'} answered "
        f"{_percentages(row['shares'])} of the requests (Jain's index {number(row['jain'])}, mean over trials); p99 "
        f"{number(row['p99_ms'])} ms."
        for _, row in table.iterrows()
        if row["shares"]
    ]
    whole = table[table["scaling"] & np.isfinite(table["saturation_per_s"])]
    for (protocol, balancer), own in whole.groupby(["protocol", "balancer"], sort=False):
        line = pd.concat([own, whole[(whole["balancer"] == "none") & (whole["protocol"] == protocol)]])
        line = line.drop_duplicates("replicas")
        if len(line) > 2:
            law = usl(line["replicas"].tolist(), line["saturation_per_s"].tolist())
            note = f" ({law.note})" if law.note else ""
            sentences.append(
                f"{NAMES[str(protocol)]}, {balancer}: by the Universal Scalability Law the contention is "
                f"{number(law.contention)} and the coherence {number(law.coherence)}{note}."
            )
    return sentences


def _percentages(shares: list[float]) -> str:
    whole = sum(shares)
    return " / ".join(f"{share / whole:.0%}" for share in shares) if whole else "none"
