"""What a run cannot show, in sentences from its own design, machine and verdicts; and how far its trials are valid."""

import pandas as pd

from infscale.analysis.intervals import MIN_LIFETIMES
from infscale.analysis.tables import Tables
from infscale.experiment.design.design import Design
from infscale.experiment.design.labels import ENCODINGS, count
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.manifest import Implementation, RunManifest
from infscale.records.runs import Run
from infscale.vocabulary import NAMES, clock


def limits(run: Run, tables: Tables) -> list[str]:
    """Return what this run cannot show, a sentence each."""
    manifest = run.manifest
    return [
        *_size(manifest),
        *_course(run),
        *(text for item in manifest.implementations.values() for text in _implementation(item)),
        *_payload(manifest.design, tables.trials),
        *_method(manifest.design),
        *_machine(manifest, tables.trials),
        *_verdicts(tables),
    ]


def _size(manifest: RunManifest) -> list[str]:
    design = manifest.design
    groups = [sum(one.arms == arms for one in manifest.lifetimes) for arms in design.groups()]
    fewest, most = min(groups, default=0), max(groups, default=0)
    lifetimes = count(fewest, "lifetime") if fewest == most else f"{fewest} to {most} lifetimes"
    trial = f"trials of {design.trial_s:g} s, or as long as {design.requests:,} requests take"
    size = f"A {design.profile} profile: {lifetimes} of the servers of each group of arms, {trial}."
    more = [
        f"Time was added after a look at the results: {', '.join(map(clock, manifest.more_s))}. The looks allow it."
    ]
    return [size, *(more if manifest.more_s else [])]


def _course(run: Run) -> list[str]:
    """What happened while the run was measured."""
    manifest = run.manifest
    interrupted = ["The run was interrupted: its trials are not complete."] if manifest.status != "complete" else []
    return [
        *interrupted,
        *manifest.restarts,
        *(f"Left out: {run.labels[arm]} ({reason})." for arm, reason in manifest.skipped.items()),
    ]


def _implementation(item: Implementation) -> list[str]:
    if "embedded" in item.implementation:
        own = f"“{item.label}” ({item.name}, runtime {item.runtime}) is our implementation of a published interface"
        return [f"{own}: nothing here is a finding about the original server."]
    if item.framework == "triton" and "numpy" in item.runtime:
        return [f"{item.label} computes with {item.runtime}: nothing here is a finding about its compiled backends."]
    return []


def _payload(design: Design, trials: pd.DataFrame) -> list[str]:
    """What the requests carried; and whether a protocol can be told apart from its encoding."""
    texts = []
    encodings = trials[trials["phase"] != "sensitivity"].groupby(["framework", "protocol"])["encoding"].agg(set)
    if len(design.protocols()) > 1 and (encodings.map(len) == 1).all():
        names = {protocol: set().union(*own) for protocol, own in encodings.groupby(level="protocol")}
        pairs = ", ".join(
            f"{NAMES[protocol]} with {' or '.join(sorted({ENCODINGS.get(name, name) for name in names[protocol]}))}"
            for protocol in NAMES
            if protocol in names
        )
        texts.append(f"A protocol was measured together with an encoding ({pairs}): the difference is that of both.")
    models, batches = ("/".join(map(str, sorted(trials[name].unique()))) for name in ("model", "batch"))
    texts.append(f"Model {models}, batch {batches}: other payloads and costlier models move the ratios.")
    texts.append("Request bodies are encoded, and compressed, before a trial: their cost is not in these times.")
    return texts


def _method(design: Design) -> list[str]:
    closed = [
        "The rate of a closed loop is nominal, and its times run from when a user was ready to send: what its users "
        "did not send while they waited is in no number of it."
    ]
    return [
        *(closed if any(arm.closed for arm in design.arms) else []),
        "Only the contrasts that were named before the run are claims; other numbers describe it, with plain 95 % "
        "intervals.",
        f"λ* depends on the length of a trial: {design.trial_s:g} s here, longer where requests would be too few.",
        "Servers are started anew in every lifetime; within one they drain until they are idle between trials.",
    ]


def _machine(manifest: RunManifest, trials: pd.DataFrame) -> list[str]:
    machine = manifest.machine
    texts = ["Intervals are over lifetimes on this machine; other machines are not covered."]
    if trials["same_host"].fillna(False).astype(bool).any():
        pinned = trials["pinned"].fillna(False).astype(bool).all()
        apart = "" if pinned else ", not pinned to cores: they took time from one another"
        texts.append(f"Load generator and servers shared one host of {machine.cores} cores{apart}.")
    if machine.governor is None:
        texts.append("The CPU frequency governor is not known.")
    return texts


def _verdicts(tables: Tables) -> list[str]:
    trials, points, texts = tables.trials, tables.points, []
    changed = int(((trials["verdict_stored"] != "") & (trials["verdict_stored"] != trials["verdict"])).sum())
    if changed:
        have = f"{count(changed, 'trial')} {'has' if changed == 1 else 'have'}"
        texts.append(f"{have} another verdict than when measured, because the rules have changed since.")
    few = int(((points["verdict"] == VALID) & (points["lifetimes"] < MIN_LIFETIMES)).sum())
    if few:
        rest = f"{count(few, 'VALID point')} {'rests' if few == 1 else 'rest'}"
        texts.append(f"{rest} on fewer than {MIN_LIFETIMES} lifetimes: percentiles there have no interval.")
    unsteady = int((trials.loc[trials["phase"] == "grid", "verdict"] == UNSTEADY).sum())
    if unsteady:
        settled = "response times had not settled by half of the trial"
        whose = "its" if unsteady == 1 else "their"
        texts.append(f"In {count(unsteady, 'trial')} {settled}: {whose} percentiles are not used.")
    if not trials["ceiling_share"].notna().all():
        texts.append("The load generator's own ceiling was not measured in this run.")
    return texts


def validity(tables: Tables) -> str:
    """Return the share of trials below λ* that are VALID, and why the others are not."""
    shares, trials = tables.shares, tables.trials
    total, valid = int(shares["trials"].sum()), int(shares["valid"].sum())
    grid = trials[trials["phase"] == "grid"]
    invalid, unsteady, saturated = (int((grid["verdict"] == name).sum()) for name in (INVALID, UNSTEADY, SATURATED))
    share = f" ({100 * valid / total:.0f} %)" if total else ""
    below = f"{valid:,} of {total:,} trials below λ* are VALID{share}" if total else "No trial lies below λ*"
    counts = grid.loc[grid["verdict"] == INVALID, "reasons"].str.split().explode().value_counts()
    gates = ", ".join(f"{name} {n:,}" for name, n in counts.items())
    reasons = f" (gates not passed: {gates})" if gates else ""
    others = f"{invalid:,} are INVALID{reasons}, {unsteady:,} UNSTEADY and {saturated:,} SATURATED"
    return f"{below}. Of all trials at set rates {others}."
