"""The remark *coalesced*: messages of streams that were sent apart arrived together.

A proxy that buffers does so, and the kernel of a sender (Nagle's algorithm). The numbers of such a trial are sound:
they are those of its path. So the gate decides no verdict; what it finds is said beside it
(docs/decisions/0029-coalesced.md).
"""

import numpy as np
import pandas as pd

from infscale.records.gate import COALESCED, Gate
from infscale.vocabulary import STREAMS_ENDED

NEAR = 0.2
"""Messages arrived together where their gap is below this share of the interval in which they were sent."""

COALESCED_MAX = 0.10
"""Largest share of such gaps that a sound path has: a server that is held up for two intervals sends what it owes at
once, and now and then any server is."""

GAPS_MIN = 100
"""Fewest gaps by which a trial is judged."""


def coalesced(samples: pd.DataFrame, chunks: pd.DataFrame, interval_ms: float, *, kept_up: bool = True) -> Gate:
    """Judge whether messages that were sent apart arrived together: the share of gaps far below their interval.

    Only of streams that ended well or went on until their timeout, sent at intervals, by a server that kept up: one
    that does not owes messages, and sends them at once.

    Args:
        samples: the trial's rows, with ``sequence`` and ``status``.
        chunks: its messages, ordered by request and index, with ``sequence`` and ``at_ns``.
        interval_ms: between messages as they are sent, ms; 0 for as fast as the server can.
        kept_up: whether the server did.
    """
    if not interval_ms:
        return _unjudged("messages are sent as fast as the server can: none were sent apart")
    ended = samples.loc[samples["status"].isin(STREAMS_ENDED), "sequence"].to_numpy()
    sequence, at = chunks["sequence"].to_numpy(), chunks["at_ns"].to_numpy()
    same = (sequence[1:] == sequence[:-1]) & np.isin(sequence[1:], ended)
    gaps_ms = np.diff(at)[same] / 1e6
    if len(gaps_ms) < GAPS_MIN:
        return _unjudged(f"{len(gaps_ms)} gaps between messages are too few to judge ({GAPS_MIN})")
    limit_ms = NEAR * interval_ms
    share = float((gaps_ms < limit_ms).mean())
    text = (
        f"{share:.0%} of the messages arrived within {limit_ms:g} ms of the one before, sent {interval_ms:g} ms apart "
        f"(at most {COALESCED_MAX:.0%})"
    )
    if not kept_up:
        return Gate(COALESCED, True, share, COALESCED_MAX, f"{text}; not judged of a server that does not keep up")
    return Gate(COALESCED, share <= COALESCED_MAX, share, COALESCED_MAX, text)


def _unjudged(text: str) -> Gate:
    return Gate(COALESCED, True, None, COALESCED_MAX, text)
