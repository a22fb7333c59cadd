"""What a run says, in sentences that follow its tables: turned data turn the sentence.

No sentence knows a direction beforehand. Where an interval or a bracket does not decide, it says "cannot
conclude".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.tables.summary import share_valid
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.report.figures.captions import Tables, headline_ratios
from infscale.report.figures.rates import NAMES
from infscale.vocabulary import CANNOT, number


def saturation(arm: "pd.Series[Any]") -> str:
    """An arm's λ* in words, with its unit."""
    match arm["bound"]:
        case "":
            low, high = arm["interval_low_per_s"], arm["interval_high_per_s"]
            interval = f" (95 % interval over replicates {number(low)} to {number(high)})" if np.isfinite(low) else ""
            return f"between {number(arm['low_per_s'])} and {number(arm['high_per_s'])} requests/s{interval}"
        case "≥":
            return f"at or above {number(arm['low_per_s'])} requests/s (never SATURATED in this run)"
        case "<":
            return f"below {number(arm['high_per_s'])} requests/s (nothing below was VALID)"
        case "~":
            against = f"{arm['contradictions']:.0f} verdicts contradict it"
            return f"near {number(arm['saturation_per_s'])} requests/s ({against})"
        case _:
            return "unknown (no usable trial)"


def saturation_findings(arms: pd.DataFrame) -> list[str]:
    """One sentence per implementation: which protocol saturates at the higher rate, where the brackets decide."""
    return [_saturation_finding(str(label), group) for label, group in arms.groupby("label", sort=False)]


def _saturation_finding(label: str, group: pd.DataFrame) -> str:
    found = {row["protocol"]: row for _, row in group.iterrows()}
    told = "; ".join(f"λ* of {NAMES[name]} lies {saturation(row)}" for name, row in found.items())
    if len(found) < 2:
        return f"{label}: {told}."
    first, second = found.values()
    for late, early in ((first, second), (second, first)):
        settled = early["settled_per_s"]
        if early["bound"] != "?" and late["low_per_s"] >= settled and not _overlap(early, late):
            later, sooner = NAMES[late["protocol"]], NAMES[early["protocol"]]
            return f"{label}: {later} kept up with higher arrival rates than {sooner}: {told}."
    return f"{label}: {CANNOT} which protocol saturates at the higher rate: {told}."


def _overlap(one: "pd.Series[Any]", other: "pd.Series[Any]") -> bool:
    """Whether two arms' intervals of λ* over replicates, where both are known, have a rate in common."""
    low = max(one["interval_low_per_s"], other["interval_low_per_s"])
    high = min(one["interval_high_per_s"], other["interval_high_per_s"])
    return bool(np.isfinite([low, high]).all() and low <= high)


def latency_findings(tables: Tables) -> list[str]:
    """One sentence per implementation on the ratio of p95 response times."""
    ratios = headline_ratios(tables)
    return [_latency_finding(str(label), group) for label, group in ratios.groupby("label", sort=False)]


def _latency_finding(label: str, group: pd.DataFrame) -> str:
    over, under = (NAMES[str(group[side].iloc[0])] for side in ("over", "under"))
    told = group[np.isfinite(group["ratio_low"])].sort_values("rate_per_s")
    if told.empty:
        return (
            f"{label}: {CANNOT} about response times: at no arrival rate were {over} and {under} both VALID "
            "in enough replicates for an interval, and SATURATED in none."
        )
    last = told.iloc[-1]
    words = {"rest": "REST was slower", "grpc": "gRPC was slower", CANNOT: CANNOT + " which is slower"}
    counts = {name: int((told["conclusion"] == name).sum()) for name in words}
    sentence = (
        f"{label}: at λ = {number(last['rate_per_s'])} requests/s, the largest at which they can be compared, "
        f"{words[last['conclusion']]}: p95 {over} ÷ {under} = {number(last['ratio'])} "
        f"(95 % interval {number(last['ratio_low'])} to {number(last['ratio_high'])}, {last['replicates']} replicates"
        f"{', exploratory' if last['exploratory'] else ''})."
    )
    corrected = int((told["p_holm"] < 0.05).sum())
    return (
        f"{sentence} Over the {len(told)} arrival rates compared, REST was slower at {counts['rest']}, gRPC at "
        f"{counts['grpc']}, and {counts[CANNOT]} cannot be decided; {corrected} differ after Holm's correction."
    )


def validity_finding(tables: Tables) -> str:
    """The share of grid trials below λ* that may be believed, and why the others may not."""
    shares, trials = tables["shares"], tables["trials"]
    total, valid = int(shares["trials"].sum()), int(shares["valid"].sum())
    grid = trials[trials["phase"] == "grid"]
    why = share_valid(grid[grid["verdict"] == INVALID])["reasons"]
    invalid, saturated = (int((grid["verdict"] == name).sum()) for name in (INVALID, SATURATED))
    below = f"{valid} of {total} trials below λ* are VALID ({valid / total:.0%})" if total else "No trial lies below λ*"
    reasons = f" (gates not passed: {why})" if why else ""
    return f"{below}. In the whole grid {invalid} trials are INVALID{reasons} and {saturated} SATURATED."


def limits(run: Mapping[str, Any], tables: Tables) -> list[str]:
    """What this run cannot show, from its own data."""
    candidates = [*_design_limits(run, tables), *_machine_limits(run, tables["trials"]), *_verdict_limits(tables)]
    return [text for text in candidates if text]


def _design_limits(run: Mapping[str, Any], tables: Tables) -> list[str]:
    config, trials = run["config"], tables["trials"]
    quick = (
        f"A {run['profile']} profile ({config['replicates']} replicates, trials of {config['trial_s']:g} s): "
        "exploratory, to be confirmed by a longer run."
    )
    embedded = [
        f"“{item['label']}” ({name}, runtime {item['runtime']}) is our implementation of a published "
        "interface: nothing here "
        "is a finding about the original server."
        for name, item in run["implementations"].items()
        if "embedded" in name
    ]
    numpy = [
        f"{item['label']} computes with {item['runtime']}: nothing here is a finding about its compiled backends."
        for item in run["implementations"].values()
        if item.get("framework") == "triton" and "numpy" in item["runtime"]
    ]
    encodings = trials.groupby("protocol")["encoding"].agg(lambda values: "/".join(sorted(set(values))))
    told = ", ".join(f"{NAMES[str(name)]} with {value}" for name, value in encodings.items())
    batches = "/".join(f"{batch}" for batch in sorted(trials["batch"].unique()))
    models = "/".join(sorted(trials["model"].unique()))
    return [
        quick if run["profile"] == "quick" or config["replicates"] < 5 else "",
        *(f"A server was lost under load and started anew: {text}." for text in run.get("restarts", ())),
        "" if run["status"] == "complete" else "The run was interrupted: its grid is not complete.",
        *embedded,
        *numpy,
        f"A protocol was measured together with an encoding ({told}): the difference is that of both.",
        f"One model ({models}), batch {batches}: other payloads and costlier models move the ratio.",
        ""
        if config.get("bisections")
        else "λ* was not narrowed by bisection: its interval over replicates is as wide as the steps of the grid.",
        ""
        if config.get("restart")
        else "Servers restarted between replicates only; after a SATURATED trial they drained until they were idle.",
    ]


def _machine_limits(run: Mapping[str, Any], trials: pd.DataFrame) -> list[str]:
    machine = run["machine"]
    together = trials["same_host"].fillna(False).astype(bool).any()
    pinned = trials["pinned"].fillna(False).astype(bool).all()
    where = f"Load generator and servers shared one host of {machine['cores']} cores" if together else ""
    where += "" if not where or pinned else ", not pinned to cores: they took time from one another"
    governor = "The CPU frequency governor is not known." if machine.get("governor") is None else ""
    return [
        f"{where}." if where else "",
        "Intervals are over replicates on this machine; other machines are not covered.",
        governor,
    ]


def _verdict_limits(tables: Tables) -> list[str]:
    trials = tables["trials"]
    changed = trials[(trials["verdict_stored"] != "") & (trials["verdict_stored"] != trials["verdict"])]
    few = tables["points"]
    few = few[(few["verdict"] == VALID) & (few["replicates"] < 3)]
    return [
        f"{len(changed)} trials have another verdict than when they were measured: the rules changed since."
        if len(changed)
        else "",
        f"VALID points on fewer than 3 replicates, where an interval is wide or withheld: {len(few)}."
        if len(few)
        else "",
        _unsteady_limit(trials),
        _ceiling_limit(trials),
    ]


def _unsteady_limit(trials: pd.DataFrame) -> str:
    unsteady = int((~trials.loc[trials["phase"] == "grid", "steady"].astype(bool)).sum())
    if not unsteady:
        return ""
    return f"{unsteady} VALID trials never became steady (warm-up past half): their percentiles do not count."


def _ceiling_limit(trials: pd.DataFrame) -> str:
    known = trials["ceiling_share"].notna().all()
    return "" if known else "The load generator's own ceiling was not measured in this run."
