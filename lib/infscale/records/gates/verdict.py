"""The verdict of a trial: may its numbers be believed, and did the server keep up?

Every gate is a pure function of the samples table and of values in the trial's manifest. A verdict is

- ``INVALID`` when the generator or the host failed: the numbers say nothing about the server;
- ``SATURATED`` when the generator was sound and the server did not keep up: a finding, not a failure;
- ``UNSTEADY`` when neither holds and the response time had not settled by half of the trial: it does not count as kept
  up, and its percentiles enter nothing;
- ``VALID`` otherwise.

The order matters: a generator that cannot keep up looks just like a server that cannot.

Of streams it is said beside the verdict where messages arrived together that were sent apart.
"""

from collections.abc import Iterable

import msgspec
import pandas as pd

from infscale.experiment.design.arm import EVERY_CLIENT
from infscale.experiment.design.arm import IMPORTED as OF_FILES
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Gate, Verdict
from infscale.records.gates.cluster import on_one_clock, workers
from infscale.records.gates.coalesced import coalesced
from infscale.records.gates.generator import (
    arrivals,
    ceiling,
    clock,
    delivered,
    engine_cpu,
    enough,
    host,
    lag,
    load_tool,
    of_a_client,
    of_a_closed_loop,
    own_limits,
    run_delay,
    server,
)
from infscale.records.gates.imported import of_a_file
from infscale.records.gates.server import saturated
from infscale.records.gates.steady import LATEST_CUT, steady
from infscale.records.manifest import Generator, Host, ServerProcess, TrialManifest


def judge_trial(samples: pd.DataFrame, manifest: TrialManifest, chunks: pd.DataFrame | None = None) -> Verdict:
    """Return the verdict of a trial by its rows, its manifest and, of streams, its messages; see :func:`judge`."""
    verdict = judge(
        samples,
        manifest.duration_s,
        manifest.generator,
        manifest.host,
        rate_per_s=manifest.rate_per_s,
        ceiling_per_s=manifest.ceiling_per_s,
        process=manifest.server,
        at_slo=manifest.phase == "capacity",
    )
    if chunks is None:
        return verdict
    gate = coalesced(samples, chunks, manifest.arm.interval_ms, kept_up=verdict.name in (VALID, UNSTEADY))
    return msgspec.structs.replace(verdict, gates=(*verdict.gates, gate))


def judge(
    samples: pd.DataFrame,
    duration_s: float,
    generator: Generator,
    machine: Host,
    *,
    rate_per_s: float = 0.0,
    ceiling_per_s: float | None = None,
    process: ServerProcess | None = None,
    at_slo: bool = False,
) -> Verdict:
    """Return the verdict of one load.

    Args:
        samples: its rows (:mod:`infscale.records.samples`), in any order.
        duration_s: length of the arrivals, s.
        generator: what the load generator used.
        machine: the machine's state meanwhile.
        rate_per_s: arrival rate λ, requests/s; needed where ``ceiling_per_s`` is known, or the client is a closed loop.
        ceiling_per_s: the most that a null server answered to this generator, requests/s; None if not measured.
        process: the server's process; None of a server that was not started here.
        at_slo: whether it is part of the search for the rate at an SLO, where a limit that is not kept is no fault.
    """
    duration_ns = duration_s * 1e9
    sound = [
        *workers(generator),
        delivered(samples, duration_ns),
        own_limits(samples, generator.limit),
        lag(samples),
        arrivals(on_one_clock(samples, generator, duration_ns), duration_ns),
        engine_cpu(generator),
        run_delay(generator),
        ceiling(rate_per_s / max(1, len(generator.workers)), ceiling_per_s),
        host(machine),
        server(process),
        clock(samples),
        enough(samples, duration_ns),
    ]
    keeping_up: list[Gate] = [*saturated(samples, duration_ns)]
    client = EVERY_CLIENT[generator.client]
    remarks: list[Gate] = []
    if generator.client in OF_FILES:
        sound, keeping_up, remarks = of_a_file(sound, keeping_up, generator.client)
    elif client.closed:
        planned = rate_per_s * duration_s if client.rated else None
        sound, keeping_up = of_a_closed_loop(sound, keeping_up, len(samples), planned)
    elif generator.client != "wire":
        sound, keeping_up = of_a_client(sound, keeping_up)
    if generator.reported is not None:
        kept_up = all(gate.passed for gate in keeping_up)
        sound = [*sound, load_tool(generator.reported, too_slow_counts=kept_up and not at_slo)]
    steadiness = [steady(samples, duration_s)]
    if client.at_once:
        steadiness = [Gate("steady", True, 0.0, LATEST_CUT, "requests that are all scheduled at once never settle")]
    failed = {INVALID: _failed(sound), SATURATED: _failed(keeping_up), UNSTEADY: _failed(steadiness), VALID: ()}
    name, reasons = next((name, gates) for name, gates in failed.items() if gates or name == VALID)
    return Verdict(name, reasons, (*sound, *keeping_up, *steadiness, *remarks), errors_by_kind(samples))


def errors_by_kind(samples: pd.DataFrame) -> dict[str, int]:
    """Return how many rows ended in each status other than ``ok``, most frequent first."""
    counts = samples["status"].value_counts()  # of a categorical column, in one pass
    return {str(kind): int(n) for kind, n in counts.items() if kind != "ok" and n > 0}


def _failed(gates: Iterable[Gate]) -> tuple[str, ...]:
    """Return the names of the gates that were not passed."""
    return tuple(gate.name for gate in gates if not gate.passed)
