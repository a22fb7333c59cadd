"""What a run cannot show, in sentences from its own design, machine and verdicts; and how far its trials are valid."""

import pandas as pd

from infscale.analysis.intervals import MIN_REPLICATES
from infscale.analysis.tables import Tables
from infscale.experiment.design.design import LEAST_REQUESTS, SEARCH, Design
from infscale.experiment.design.labels import ENCODINGS, count
from infscale.records.gate import INVALID, SATURATED, VALID
from infscale.records.manifest import Implementation, RunManifest
from infscale.records.runs import Run
from infscale.vocabulary import NAMES

EXPLORATORY_BELOW = 5
"""Replicates below which a run is called exploratory."""


def limits(run: Run, tables: Tables) -> list[str]:
    """Return what this run cannot show, a sentence each."""
    manifest = run.manifest
    return [
        *_size(manifest.design),
        *_course(run),
        *(text for item in manifest.implementations.values() for text in _implementation(item)),
        *_payload(manifest.design, tables.every),
        *_method(manifest.design),
        *_machine(manifest, tables.every),
        *_verdicts(tables),
    ]


def _size(design: Design) -> list[str]:
    least = f", or as long as {LEAST_REQUESTS} requests take" if design.rates == SEARCH else ""
    size = f"A {design.profile} profile ({design.replicates} replicates, trials of {design.trial_s:g} s{least})"
    few = design.profile == "quick" or design.replicates < EXPLORATORY_BELOW
    return [f"{size}: exploratory, to be confirmed by a longer run."] if few else [f"{size}."]


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
    texts = []
    if design.rates == SEARCH:
        texts.append("Differences of p95 are corrected after Holm over the arms; those of saturation rates are not.")
    elif not design.bisections:
        steps = "its interval over replicates is as wide as the steps between the rates"
        texts.append(f"λ* was not narrowed by bisection: {steps}.")
    if not design.restart:
        drained = "after a SATURATED trial they drained until they were idle"
        texts.append(f"Servers restarted between replicates only; {drained}.")
    return texts


def _machine(manifest: RunManifest, trials: pd.DataFrame) -> list[str]:
    machine = manifest.machine
    texts = ["Intervals are over replicates on this machine; other machines are not covered."]
    if trials["same_host"].fillna(False).astype(bool).any():
        pinned = trials["pinned"].fillna(False).astype(bool).all()
        apart = "" if pinned else ", not pinned to cores: they took time from one another"
        texts.append(f"Load generator and servers shared one host of {machine.cores} cores{apart}.")
    if machine.governor is None:
        texts.append("The CPU frequency governor is not known.")
    return texts


def _verdicts(tables: Tables) -> list[str]:
    trials, points, texts = tables.every, tables.points, []
    changed = int(((trials["verdict_stored"] != "") & (trials["verdict_stored"] != trials["verdict"])).sum())
    if changed:
        have = f"{count(changed, 'trial')} {'has' if changed == 1 else 'have'}"
        texts.append(f"{have} another verdict than when measured, because the rules have changed since.")
    few = int(((points["verdict"] == VALID) & (points["replicates"] < MIN_REPLICATES)).sum())
    if few:
        rest = f"{count(few, 'VALID point')} {'rests' if few == 1 else 'rest'}"
        texts.append(f"{rest} on fewer than {MIN_REPLICATES} replicates: percentiles there have no interval.")
    unsteady = int((~trials.loc[trials["phase"] == "grid", "steady"].astype(bool)).sum())
    if unsteady:
        settled = "response times had not settled by half of the trial"
        whose = "its" if unsteady == 1 else "their"
        texts.append(f"In {count(unsteady, 'VALID trial')} {settled}: {whose} percentiles are not used.")
    if not trials["ceiling_share"].notna().all():
        texts.append("The load generator's own ceiling was not measured in this run.")
    return texts


def validity(tables: Tables) -> str:
    """Return the share of trials below λ* that are VALID, and why the others are not."""
    shares, trials = tables.shares, tables.every
    total, valid = int(shares["trials"].sum()), int(shares["valid"].sum())
    grid = trials[trials["phase"] == "grid"]
    invalid, saturated = (int((grid["verdict"] == name).sum()) for name in (INVALID, SATURATED))
    share = f" ({100 * valid / total:.0f} %)" if total else ""
    below = f"{valid} of {total} trials below λ* are VALID{share}" if total else "No trial lies below λ*"
    counts = grid.loc[grid["verdict"] == INVALID, "reasons"].str.split().explode().value_counts()
    gates = ", ".join(f"{name} {n}" for name, n in counts.items())
    reasons = f" (gates not passed: {gates})" if gates else ""
    return f"{below}. Of all trials at set rates {invalid} are INVALID{reasons} and {saturated} SATURATED."
