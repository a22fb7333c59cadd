"""Streaming: how soon does a stream begin, and how evenly does it go on, over REST and over gRPC?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace

from infscale.analysis.tables import Tables
from infscale.experiment.design.arm import STREAM_MODEL, Arm
from infscale.experiment.design.design import FIRST, GAP, PER_CORE, PER_MESSAGE
from infscale.experiment.design.labels import framework, interval, message_size, own_speed
from infscale.findings.finding import Blocks, Finding, compared
from infscale.records.gate import VALID
from infscale.records.gates.coalesced import NEAR
from infscale.records.runs import Run
from infscale.report.figures import captions
from infscale.report.figures.arms import streams as drawing
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import COSTS
from infscale.report.figures.picture import Picture
from infscale.report.wording import with_interval
from infscale.vocabulary import number

MESSAGES = 20
"""Messages of a stream."""

INTERVAL_MS = 5.0
"""Time between messages, ms, where they are sent apart."""

SIZES_BYTES = (32, 4_000, 256_000)
"""Sizes of a message, bytes: a token, a few sentences, a small picture. The largest is sent apart alone."""

WAYS = {"triton": "sse", "torchserve": "chunks"}
"""How each framework streams over REST: server-sent events, or a chunk for each message."""

WORKERS = {0.0: 2, INTERVAL_MS: 8}
"""TorchServe's workers by interval, ms: each serves one stream at a time, which at 5 ms takes a tenth of a second."""

HOLD_MS = 20.0
"""For how long the buffering proxy keeps what it gets, ms."""

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return REST and gRPC on one server for each framework, size and interval, a block each.

    The quick profile has six arms: Triton with tokens sent apart, where a protocol shows what it adds, and with 4 kB at
    the backend's own speed, where the cost of a message decides; and TorchServe at its own speed, because at 5 ms a
    worker takes ten streams a second, and one lifetime of few workers would last minutes. A buffering proxy
    stands before one arm, Triton over gRPC, so that it is all that tells the two apart. The full profile has every
    combination.
    """
    proxied = [*_pair("triton", 32, INTERVAL_MS), _behind_proxy(_arm("grpc", "triton", 32, INTERVAL_MS))]
    if profile == "tiny":
        return [proxied]
    if profile == "quick":
        return [proxied, _pair("triton", 4_000, 0.0), _pair("torchserve", 32, 0.0)]
    others = [
        _pair(name, size, interval_ms)
        for name in WAYS
        for size in SIZES_BYTES
        for interval_ms in (INTERVAL_MS, 0.0)
        if (name, size, interval_ms) != ("triton", 32, INTERVAL_MS) and (interval_ms or size < SIZES_BYTES[-1])
    ]
    return [proxied, *others]


def _pair(name: str, size: int, interval_ms: float) -> list[Arm]:
    return [_arm(protocol, name, size, interval_ms) for protocol in ("rest", "grpc")]


def _arm(protocol: str, name: str, size: int, interval_ms: float) -> Arm:
    return Arm(
        protocol,
        WAYS[name] if protocol == "rest" else "",
        messages=MESSAGES,
        message_bytes=size,
        interval_ms=interval_ms,
        framework=name,
        model=STREAM_MODEL,
        options=(("workers", WORKERS[interval_ms]),) if name == "torchserve" else (),
    )


def _behind_proxy(arm: Arm) -> Arm:
    return replace(arm, front="buffered", options=(*arm.options, ("hold_ms", HOLD_MS)))


# -------------------------------------------------------------------------------------------- answer


def lead(run: Run, tables: Tables) -> list[str]:
    """Return which arms' messages arrived together although they were sent apart."""
    return _coalesced(run, tables)


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on what arrived together, on what each arm's streams brought, and on each named contrast."""
    return [*_coalesced(run, tables), *_brought(run, tables), *_notes(run), *compared(run, tables)]


def _coalesced(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each arm whose messages arrived together, or one that says that none did."""
    if FIRST not in tables.summary:
        return []
    grid = tables.trials[(tables.trials["phase"] == "grid") & tables.trials["verdict"].eq(VALID)]
    judged = grid[grid["coalesced_share"].notna()]
    sentences = []
    for arm, own in judged.groupby("arm"):
        together = own["coalesced"].astype(bool)
        if together.any():
            factors = run.manifest.design.arms[int(str(arm))]
            share = 100 * own.loc[together, "coalesced_share"].mean()
            sentences.append(
                f"{run.labels[int(str(arm))]}: in {int(together.sum())} of {len(own)} VALID trials messages arrived "
                f"together although they were sent {factors.interval_ms:g} ms apart: {share:.0f} % of them within "
                f"{NEAR * factors.interval_ms:g} ms of the one before, so that something on the way collects them."
            )
    if len(judged) and not sentences:
        return ["In no VALID trial did messages arrive together that were sent apart."]
    return sentences


def _brought(run: Run, tables: Tables) -> list[str]:
    """Return for each arm when its messages came at the larger rate of moderate load."""
    if FIRST not in tables.summary:
        return []
    rows = [row for _, row in tables.summary.iterrows() if np.isfinite(row[FIRST])]
    return [f"{row['label']}, {_numbers(row)}." for row in rows]


def _numbers(row: "pd.Series[Any]") -> str:
    first, gap, core, cost = (
        with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
        for name in (FIRST, GAP, PER_CORE, PER_MESSAGE)
    )
    return (
        f"at {number(row['rate_per_s'])} requests/s: first message at p95 {first} ms after the schedule and "
        f"{number(row['first_message_from_send_p95_ms'])} ms after the send; gaps {number(row['gap_p50_ms'])} ms at "
        f"p50, {number(row['gap_p95_ms'])} ms at p95 and {gap} ms at p99, the longest {number(row['stall_ms'])} ms; "
        f"whole streams {number(row['response_p95_ms'])} ms at p95; {number(row['messages_per_read'])} messages a "
        f"read, "
        f"{number(row['messages_per_s'])} messages/s, {core} for a second of the deployment's CPU, and {cost} µs of "
        "the client's CPU a message"
    )


def _notes(run: Run) -> list[str]:
    """Return what must be known of the servers that were measured."""
    arms = [run.manifest.design.arms[arm] for arm in run.measured]
    notes = []
    held = dict.fromkeys(float(dict(arm.options)["hold_ms"]) for arm in arms if arm.front == "buffered")
    notes += [
        f"The proxy keeps what the server sends for {hold_ms:g} ms and passes it on together: it is this project's, "
        "and stands for those of the field, which buffer by rules of their own."
        for hold_ms in held
    ]
    workers = dict.fromkeys(int(dict(arm.options)["workers"]) for arm in arms if arm.framework == "torchserve")
    if workers:
        many = " or ".join(map(str, workers))
        notes.append(
            f"TorchServe has {many} workers here, and each serves one stream at a time: its numbers are compared with "
            "one another, and not with those of Triton."
        )
    if any(not arm.interval_ms for arm in arms):
        notes.append(
            "Without an interval the gaps and the rate of messages are the backend's own speed, with what the protocol "
            "adds: no protocol could be faster than the model sends."
        )
    return notes


# ------------------------------------------------------------------------------------------- pictures


def _with_panels(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows with a ``panel`` for each block of arms, and ``interval_ms`` of its reference."""
    design = run.manifest.design
    references = [design.arms[design.block(int(arm))] for arm in table["arm"]]
    names = [
        ", ".join(filter(None, (framework(one), message_size(one), interval(one), own_speed(one))))
        for one in references
    ]
    return table.assign(panel=pd.Series(names, index=table.index, dtype=object))


def gaps_numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the distributions of gaps as :func:`infscale.report.figures.arms.streams.draw_gaps` takes them."""
    return _with_panels(run, _marked(tables, tables.gaps)) if len(tables.gaps) else tables.gaps


def first_numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the points as :func:`infscale.report.figures.arms.streams.draw_first` takes them."""
    if FIRST not in tables.points:
        return tables.points.iloc[:0]
    points = tables.points.drop(columns="coalesced")
    return _with_panels(run, _marked(tables, points))


def _marked(tables: Tables, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows with ``coalesced``: whether messages arrived together in half of the arm's VALID trials or more."""
    grid = tables.trials[(tables.trials["phase"] == "grid") & tables.trials["verdict"].eq(VALID)]
    shares = grid["coalesced"].eq(True).groupby(grid["arm"]).mean()
    return table.assign(coalesced=table["arm"].map(shares).fillna(0.0) >= 0.5)


def _gaps_caption(_: Run, tables: Tables) -> str:
    if not len(tables.gaps):
        return drawing.GAPS_CAPTION
    arms = tables.gaps.drop_duplicates("arm")
    return f"{drawing.GAPS_CAPTION} {captions.span(arms['n'])} gaps an arm ({captions.lifetimes(arms['lifetimes'])})."


def _first_caption(_: Run, tables: Tables) -> str:
    return f"{drawing.FIRST_CAPTION} {captions.basis(tables.points)} {captions.not_valid(tables.points, arrows=True)}"


GAPS = Picture("gaps", gaps_numbers, drawing.draw_gaps, _gaps_caption, drawing.GAPS_ALTERNATIVE)
FIRST_MESSAGE = Picture("first-message", first_numbers, drawing.draw_first, _first_caption, drawing.FIRST_ALTERNATIVE)

PICTURES: Sequence[Picture] = (SUMMARY, GAPS, FIRST_MESSAGE, COSTS)

FINDING = Finding(
    name="streaming",
    question="How soon does a stream begin, and how evenly does it go on, over REST and over gRPC?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=PICTURES,
    notebook="20-streaming",
    sizes={"tiny": {"curve": 1}, "quick": {"curve": 1}, "full": {"curve": 4}},
    reference=1,
)
