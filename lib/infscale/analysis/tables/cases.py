"""From the rows of a finding's run to its tables: by case, and each case against another."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.intervals import geometric_mean, hodges_lehmann, holm, spread
from infscale.analysis.tables import usage as usage_table
from infscale.analysis.tables.saturation import arms_table, capacity_ratio, replicate_brackets
from infscale.analysis.tables.summary import points_table, withheld_because
from infscale.analysis.tables.trials import ARM, comparable, trials_table, used
from infscale.records.runs import Run
from infscale.report.sentences import saturation
from infscale.vocabulary import number

P95 = "response_p95_ms"
ALPHA = 0.05
SHOWN = ["bytes_out", "bytes_in", "encode_us", "decode_us", "saturation_per_s", P95, "verdict"]
"""The columns of ``cases`` that notebooks show."""


def study_tables(run: Run, slo_ms: float = 100.0) -> dict[str, pd.DataFrame]:
    """``trials``, ``points`` and ``arms`` as of the protocol grid, by case (``label``); ``cases`` and ``contrasts``.

    Where a finding has several common rates, these are of the one nearest to half of the smallest capacity; ``every``
    holds all trials but the pilot's, and ``usage`` what groups of processes used at every rate
    (:mod:`infscale.analysis.tables.usage`).
    """
    every = trials_table(run, slo_ms)
    every = every[every["phase"] != "pilot"]  # short trials; every replicate has searched for itself
    arms = arms_table(every)
    trials = every[(every["phase"] != "grid") | (every["rate_per_s"] == every["block"].map(_common_rates(run)))]
    points = points_table(trials)
    return {
        "every": every,
        "usage": usage_table.points(usage_table.trials(run)),
        "trials": trials,
        "points": points,
        "arms": arms,
        "cases": _cases(run, points, arms, trials),
        "contrasts": contrasts_table(trials, _against(run)),
    }


def _against(run: Run) -> dict[str, str]:
    """What each case is compared with, by labels, where both were measured."""
    labels = run.case_labels()
    pairs = [(c["over"], c["under"]) for c in run.manifest["contrasts"]]
    return {labels[over]: labels[under] for over, under in pairs if over in labels and under in labels}


def _common_rates(run: Run) -> dict[str, float]:
    """Of each block the rate at which its cases are compared."""
    shares = run.manifest["config"]["fractions"]
    k = int(np.argmin([abs(share - 0.5) for share in shares]))
    return {block: rates[k] for block, rates in run.manifest["rates_per_s"].items()}


def _cases(run: Run, points: pd.DataFrame, arms: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """One row per case, in the order of the configuration: bytes, costs, capacity, p95 at the common rate."""
    grid = trials[(trials["phase"] == "grid") & (trials["failed"] < trials["scheduled"])]
    costs = grid.groupby("label")[["bytes_out", "bytes_in", "hit_ratio"]].mean()
    labels = run.case_labels()
    found = {label: run.manifest["pilot"][name]["codec_us"] for name, label in labels.items()}
    codec = pd.DataFrame.from_dict(found, orient="index", columns=["encode_us", "decode_us"])
    whole = points.merge(arms.drop(columns=["valid", "invalid", "saturated"]), on=ARM, how="outer").set_index("label")
    used = _cpu(run, points)
    return whole.join(costs).join(codec).join(used).reindex(list(labels.values())).rename_axis("label").reset_index()


def _cpu(run: Run, points: pd.DataFrame) -> pd.DataFrame:
    """CPU µs of a request at the common rate, by case and group of processes (columns ``cpu_us_<group>``)."""
    used = usage_table.trials(run)
    if used.empty:
        return pd.DataFrame()
    at = used.merge(points[["label", "rate_per_s"]], on=["label", "rate_per_s"])
    wide = at.pivot_table(index="label", columns="group", values="cpu_us_per_request")
    return wide.add_prefix("cpu_us_")


def contrasts_table(trials: pd.DataFrame, against: Mapping[str, str], name: str = P95) -> pd.DataFrame:
    """Every case ÷ the one that it is compared with, at their common rate, paired by replicate.

    A pair counts where both are VALID and steady, and neither was SATURATED in another replicate. ``conclusion`` is
    "slower", "faster" or "cannot conclude" by the 95 % interval, if it still is after Holm's correction over the table
    (``p_holm``). Cases that were left out have no row.
    """
    frame, fit = used(trials), comparable(trials, name)
    wide = fit.pivot_table(index=["block", "rate_per_s", "replicate"], columns="label", values=name)
    there = set(frame["label"])
    pairs = [(label, first) for label, first in against.items() if {label, first} <= there]
    brackets = replicate_brackets(trials)
    rows = [_contrast(wide, *pair, name) | _capacities(brackets, *pair) for pair in pairs]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table = table.assign(p_holm=holm(table["p_value"]))
    return table.assign(conclusion=table["conclusion"].where(table["p_holm"] < ALPHA, "cannot conclude"))


def _contrast(wide: pd.DataFrame, label: str, reference: str, name: str) -> dict[str, Any]:
    both = {reference, label} <= set(wide.columns)
    pairs = (wide[label] / wide[reference]).dropna().to_numpy() if both else np.array([])
    found = geometric_mean(pairs)
    return {
        "label": label,
        "reference": reference,
        "metric": name,
        "replicates": found.replicates,
        "exploratory": found.exploratory,
        "ratio": found.value,
        "ratio_low": found.low,
        "ratio_high": found.high,
        "note": withheld_because(len(pairs)),
        "hodges_lehmann": hodges_lehmann(pairs),
        "spread": spread(pairs),
        "p_value": found.p_value,
        "conclusion": "slower" if found.low > 1 else "faster" if found.high < 1 else "cannot conclude",
    }


def _capacities(brackets: pd.DataFrame, label: str, reference: str) -> dict[str, Any]:
    """The ratio of two capacities: "higher", "lower" or "cannot conclude" by its interval."""
    found = capacity_ratio(brackets, label, reference)
    return {
        "capacity_ratio": found.value,
        "capacity_ratio_low": found.low,
        "capacity_ratio_high": found.high,
        "capacity_replicates": found.replicates,
        "capacity_conclusion": "higher" if found.low > 1 else "lower" if found.high < 1 else "cannot conclude",
    }


def sentences(tables: dict[str, pd.DataFrame]) -> list[str]:
    """What was found, a sentence per case: what others are compared with first; turned data turn them."""
    cases = {row["label"]: row for _, row in tables["cases"].iterrows()}
    contrasts = {row["label"]: row for _, row in tables["contrasts"].iterrows()}
    return [
        _compared(contrasts[name], case, cases[contrasts[name]["reference"]]) if name in contrasts else _alone(case)
        for name, case in cases.items()
    ]


def _alone(case: "pd.Series[Any]") -> str:
    return (
        f"{case['label']}: capacity {saturation(case)}; {_bytes_words(case['bytes_out'])} a request, "
        f"{_bytes_words(case['bytes_in'])} an answer."
    )


def _compared(row: "pd.Series[Any]", case: "pd.Series[Any]", first: "pd.Series[Any]") -> str:
    reference = row["reference"]
    known = np.isfinite(row["ratio_low"])
    words = {"slower": "is slower", "faster": "is faster", "cannot conclude": "cannot be told apart in speed"}
    ratio = f"p95 {number(row['ratio'])} times that of {reference}" if np.isfinite(row["ratio"]) else "no p95"
    interval = f"95 % interval {number(row['ratio_low'])} to {number(row['ratio_high'])}" if known else row["note"]
    return (
        f"{row['label']} {words[row['conclusion']]} at λ = {number(case['rate_per_s'])}/s: {ratio} ({interval}, "
        f"{row['replicates']} replicates{', exploratory' if row['exploratory'] else ''}{_corrected(row)}). Capacity "
        f"{saturation(case)}{_capacity_words(row)}; {_bytes_words(case['bytes_out'], first['bytes_out'])} a request."
    )


def _bytes_words(count: float, first: float = float("nan")) -> str:
    """Bytes on the wire, and how many times those of the reference."""
    if np.isnan(count):
        return "an unknown number of bytes"
    times = f" ({number(count / first)} times)" if np.isfinite(first) else ""
    return f"{number(count)} bytes{times}"


def _corrected(row: "pd.Series[Any]") -> str:
    """Said where an interval alone would conclude more than is left after the correction."""
    apart = row["ratio_low"] > 1 or row["ratio_high"] < 1
    return f"; after Holm p = {number(row['p_holm'])}" if apart and row["conclusion"] == "cannot conclude" else ""


def _capacity_words(row: "pd.Series[Any]") -> str:
    """How two capacities compare, by the interval of their ratio."""
    reference = row["reference"]
    if not np.isfinite(row["capacity_ratio_low"]):
        return f", cannot conclude whether higher than that of {reference}"
    interval = f"{number(row['capacity_ratio_low'])} to {number(row['capacity_ratio_high'])}"
    ratio = f"{number(row['capacity_ratio'])} times that of {reference} (95 % interval {interval})"
    if row["capacity_conclusion"] == "cannot conclude":
        return f", {ratio}: cannot conclude which is higher"
    return f", {row['capacity_conclusion']}: {ratio}"
