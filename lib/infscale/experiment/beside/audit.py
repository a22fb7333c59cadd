"""Audits of one server: are its answers right, and does it answer repeated requests as fast as fresh ones?

The first lets MLPerf LoadGen ask for every answer of the pool (its mode AccuracyOnly). The second is in the manner of
MLPerf's TEST04, which looks for caches: trials of repeated and of fresh requests take turns on one server, with the
same arrivals; :mod:`infscale.findings.cache_audit` says whether they differ.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pandas as pd

from infscale.deployment.endpoint import PARITY, Endpoint
from infscale.errors import ConfigError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import FEWEST
from infscale.experiment.trial import POOL, Outcome, Plan
from infscale.load import loadgen_client
from infscale.models.reference import Array, inputs, max_difference, model
from infscale.records.gate import INVALID, UNSTEADY
from infscale.records.gates.server import FIRST_PART

ATTEMPTS = 3
"""Most attempts for a trial that is INVALID or UNSTEADY."""

REPEATS = {"fresh": 0.0, "repeated": 1.0}
"""Fraction of requests that repeat, by the name of the trial in a round."""

Say = Callable[[str], None]


# -------------------------------------------------------------------------------------------- accuracy


@dataclass(frozen=True)
class Accuracy:
    """What LoadGen's accuracy mode found of one protocol.

    Attributes:
        protocol, encoding: how the answers were asked for.
        answers: how many were asked for; every body of the pool once.
        agreeing: how many agree with the reference output within ``limit``.
        failed: how many requests failed, or were answered with no prediction.
        largest: the largest absolute difference of an answer's numbers from the reference; NaN without an answer.
        limit: the largest difference that agrees, exclusive.
        logs: LoadGen's own, by the name of the file.
    """

    protocol: str
    encoding: str
    answers: int
    agreeing: int
    failed: int
    largest: float
    limit: float
    logs: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def passed(self) -> bool:
        """Whether every answer agrees with the reference."""
        return self.agreeing == self.answers

    @property
    def text(self) -> str:
        """What was found, as a sentence."""
        failed = f", and {self.failed} failed" if self.failed else ""
        return (
            f"{self.agreeing} of {self.answers} answers over {self.protocol} ({self.encoding}) agree with the "
            f"reference model within {self.limit:g}{failed}; the largest difference is {self.largest:.2g}"
        )


def accuracy(endpoint: Endpoint, protocol: str, *, encoding: str = "", timeout_s: float | None = None) -> Accuracy:
    """Have LoadGen ask for every answer of the pool once, and compare them with the reference model's.

    Args:
        endpoint: serves a reference model.
        protocol: "rest" or "grpc".
        encoding: "" for the framework's own.
        timeout_s: longest wait for one answer, s; by default the endpoint's.

    Raises:
        ConfigError: the model is the user's own, or the encoding is not taken.
        MissingError: LoadGen is not installed.
        EngineError: its process failed.
    """
    if endpoint.own is not None:
        raise ConfigError(f"model={endpoint.model!r} has no reference output; accepted: a reference model")
    payload = endpoint.payload(protocol, encoding=encoding, count=POOL)
    replies, logs = loadgen_client.answers(
        f"{endpoint.scheme(protocol)}://{endpoint.address(protocol)}{payload.path}",
        payload.bodies,
        timeout_s=timeout_s or endpoint.timeout_s,
        connections=1,
        headers={**endpoint.headers, **payload.headers},
        ca=endpoint.ca,
    )
    truth = model(endpoint.model).predict(inputs(endpoint.model, POOL)[: len(replies)])
    differences = [_difference(payload.decode, reply, row) for reply, row in zip(replies, truth, strict=True)]
    known = [difference for difference in differences if difference is not None]
    limit = PARITY[model(endpoint.model).dtype]
    return Accuracy(
        protocol,
        payload.encoding,
        answers=len(replies),
        agreeing=sum(difference < limit for difference in known),
        failed=len(differences) - len(known),
        largest=max(known, default=math.nan),
        limit=limit,
        logs=logs,
    )


def _difference(decode: Callable[[bytes], Array], reply: bytes | None, truth: Array) -> float | None:
    """Return the difference of one answer from the reference; None where there is no prediction."""
    if reply is None:
        return None
    try:
        return max_difference(np.asarray(decode(reply), np.float32).reshape(truth.shape), truth)
    except Exception:  # whatever the decoder of a foreign answer raises
        return None


# --------------------------------------------------------------------------------------------- caching


def rounds(
    endpoint: Endpoint,
    arm: Arm,
    *,
    rate_per_s: float,
    duration_s: float,
    count: int,
    timeout_s: float = 5.0,
    seed: int,
    say: Say = lambda _: None,
) -> pd.DataFrame:
    """Load one server with repeated and with fresh requests in turn, and return a row for each trial that counts.

    A round is one trial of each, with the same arrivals; which of them comes first alternates. A first round is not
    returned: it warms the server up, and a cache with the bodies that repeat. A trial that is
    INVALID or UNSTEADY is repeated; a round that has no other of one kind is left out.

    Columns: ``round``, ``kind`` (:data:`REPEATS`), ``verdict``, ``requests`` (that succeeded after the first tenth),
    ``p50_ms`` (of their response times), ``hits`` and ``misses`` (of a cache, as it counts them itself; NaN without one
    that counts).

    Args:
        endpoint: serves a reference model of float32 rows.
        arm: how it is asked; its ``repeat`` is set here.
        rate_per_s, duration_s, timeout_s: of each trial; it lasts longer where it would have too few requests to judge.
        count: number of rounds.
        seed: of arrivals and bodies.
        say: gets a line for each round.

    Raises:
        ConfigError: requests of the model cannot be made anew, or the arm cannot repeat requests.
    """
    if endpoint.own is not None or model(endpoint.model).dtype != "float32":
        raise ConfigError(
            f"model={endpoint.model!r}: fresh requests are made of float32 rows; accepted: noop, mlp, cnn"
        )
    arms = {kind: msgspec.structs.replace(arm, repeat=repeat, zipf=None) for kind, repeat in REPEATS.items()}
    table = []
    duration_s = max(duration_s, FEWEST / rate_per_s)
    for number in range(count + 1):
        order = list(arms) if (number + seed) % 2 else list(arms)[::-1]
        pair = []
        for kind in order:
            for attempt in range(1, ATTEMPTS + 1 if number else 2):
                plan = Plan(arms[kind], rate_per_s, duration_s, timeout_s, seed, (97, number, attempt), attempt=attempt)
                outcome = trial.run(endpoint, plan)
                if outcome.verdict not in (INVALID, UNSTEADY):
                    pair.append({"round": number, "kind": kind, **_read(outcome)})
                    break
                if number:
                    say(f"round {number} of {count}: {kind}: {outcome.manifest.judged.text}")
        if number and len(pair) == len(arms):
            say(f"round {number} of {count}: {', '.join(_shown(one) for one in pair)}")
            table += pair
    columns = ["round", "kind", "verdict", "requests", "p50_ms", "hits", "misses"]
    return pd.DataFrame(table, columns=columns)


def _read(outcome: Outcome) -> dict[str, object]:
    rows, cache = outcome.samples, outcome.manifest.cache
    kept = rows[(rows["status"] == "ok") & (rows["scheduled_ns"] >= FIRST_PART * outcome.manifest.duration_s * 1e9)]
    response_ms = (kept["done_ns"] - kept["scheduled_ns"]).to_numpy() / 1e6
    return {
        "verdict": outcome.verdict,
        "requests": len(kept),
        "p50_ms": float(np.median(response_ms)) if len(kept) else math.nan,
        "hits": cache.get("hits", math.nan),
        "misses": cache.get("misses", math.nan),
    }


def _shown(one: Mapping[str, object]) -> str:
    return f"{one['kind']} p50 {one['p50_ms']:.3g} ms ({one['verdict']})"
