"""A whole fake run for tests: folders, manifests and rows, drawn from simulated FIFO queues.

Nothing here was measured. The capacity of each arm is an argument, so that a test can turn the data around.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import USUAL, Contrast, Design
from infscale.load.null_server import lindley
from infscale.machine import Machine
from infscale.records import manifest as manifests
from infscale.records import samples
from infscale.records.gates.verdict import judge_trial
from infscale.records.manifest import (
    Generator,
    Host,
    Implementation,
    Lifetime,
    Phase,
    Pilot,
    RunManifest,
    Seeds,
    ServerProcess,
    TrialManifest,
)

Ints = NDArray[np.int64]

TFSERVING, TORCHSERVE = "tfserving-embedded", "torchserve"
FRAMEWORK = {TFSERVING: "tfserving", TORCHSERVE: "torchserve"}
LABEL = {TFSERVING: "TensorFlow Serving API, embedded (our implementation)", TORCHSERVE: "TorchServe"}
MACHINE = Machine(cpu="Synthetic CPU", cores=2, governor=None, memory_gib=8.0, kernel="6", os="Linux", python="3.11.0")
GRPC_FASTER = {
    (TFSERVING, "rest"): 1000.0,
    (TFSERVING, "grpc"): 2000.0,
    (TORCHSERVE, "rest"): 600.0,
    (TORCHSERVE, "grpc"): 650.0,
}
REST_FASTER = {
    (name, {"rest": "grpc", "grpc": "rest"}[protocol]): rate for (name, protocol), rate in GRPC_FASTER.items()
}
GRID = (0.1, 0.3, 0.45, 0.7, 0.85, 1.2)
TRANSPORT_NS = 300_000
LAG_NS = np.random.default_rng(7).lognormal(np.log(60_000), 0.6, 100_000).astype(np.int64)


def poisson(rng: np.random.Generator, rate_per_s: float, duration_s: float) -> Ints:
    """Arrival times of a Poisson process on [0, duration), ns."""
    n = rng.poisson(rate_per_s * duration_s)
    times: Ints = np.sort(rng.uniform(0, duration_s * 1e9, n)).astype(np.int64)
    return times


def generator_of(**changes: Any) -> Generator:
    """A load generator that was sound."""
    sound: dict[str, Any] = {"cpu_s": 0.2, "cpu_user_s": 0.1, "cpu_system_s": 0.1, "wall_s": 2.1, "run_delay_s": 0.01}
    return Generator(**(sound | changes))


def host_of(**changes: Any) -> Host:
    """A machine that was at nobody else's service."""
    quiet: dict[str, Any] = {"same_host": True, "loadavg_1m": 0.4, "steal_fraction": 0.0, "cores": 2, "pinned": False}
    return Host(**(quiet | changes))


def manifest_of(arm: Arm | None = None, **changes: Any) -> TrialManifest:
    """A trial's manifest in which generator and host are sound."""
    fields: dict[str, Any] = {
        "trial_id": "t",
        "run_id": "synthetic",
        "machine_digest": MACHINE.digest(),
        "arm": arm or Arm("rest", framework="torchserve", encoding="json", connections=256),
        "implementation": TORCHSERVE,
        "rate_per_s": 400.0,
        "ceiling_per_s": 60_000.0,
        "duration_s": 2.0,
        "timeout_s": 3.0,
        "seeds": Seeds(entropy=1, arrivals=[0, 0], payload=[0, 1]),
        "pool": 256,
        "generator": generator_of(),
        "host": host_of(),
        "server": ServerProcess(command=[], pids=[], ready_s=1.0),
        "started_at": "2026-01-01T00:00:00+00:00",
        "rows": 0,
    }
    return TrialManifest(**(fields | changes))


def build(
    folder: Path,
    capacities: Mapping[tuple[str, str], float] = GRPC_FASTER,
    *,
    lifetimes: int = 4,
    duration_s: float = 2.0,
    grid: tuple[float, ...] = GRID,
    seed: int = 1,
    spread: float = 0.02,
    shrink: float | None = None,
    searches: bool = False,
) -> Path:
    """Write a complete run of F0 below ``folder``, not packed, and return its path.

    ``spread`` is the standard deviation of the logarithm of an arm's speed between lifetimes;
    ``shrink`` is another capacity for all arms than the one that the rates were chosen for. With ``searches`` every
    lifetime has two trials of each arm beside its capacity, at random rates; else λ* is known only as the step of the
    set rates in which it lies, which may be the same in every lifetime.
    """
    names = sorted({name for name, _ in capacities})
    run = run_manifest_of(names, capacities, lifetimes, duration_s, grid)
    path = folder / run.run_id
    (path / "trials").mkdir(parents=True)
    manifests.write(path / "run.json", run)
    rng, speeds = np.random.default_rng(seed), []
    for lifetime in range(lifetimes):
        speed = {arm: float(np.exp(rng.normal(0, spread))) for arm in sorted(capacities)}
        for k, name in enumerate(names):
            for rate in (*run.rates_per_s[2 * k + 1], *run.curve_per_s[2 * k + 1]):
                arrivals = poisson(rng, rate, duration_s)
                for number in (2 * k, 2 * k + 1):
                    arm = name, run.design.arms[number].protocol
                    service = rng.exponential(1e9 / (shrink or capacities[arm]) * speed[arm], len(arrivals))
                    _write_trial(path, run, number, rate, lifetime, arrivals, service.astype(np.int64))
        speeds.append(speed)
    for lifetime, speed in enumerate(speeds if searches else ()):
        for number, one in enumerate(run.design.arms):
            arm = names[number // 2], one.protocol
            low = capacities[arm] / speed[arm] * rng.uniform(0.7, 0.85)
            for rate in (low, 1.6 * low):
                arrivals = poisson(rng, rate, duration_s)
                service = rng.exponential(1e9 / capacities[arm] * speed[arm], len(arrivals))
                _write_trial(path, run, number, rate, lifetime, arrivals, service.astype(np.int64), "search")
    return path


def run_manifest_of(
    names: list[str],
    capacities: Mapping[tuple[str, str], float],
    lifetimes: int,
    duration_s: float,
    grid: tuple[float, ...],
) -> RunManifest:
    """The manifest of a complete run of F0: of each implementation REST, then gRPC, and REST ÷ gRPC."""
    arms = [(name, protocol) for name in names for protocol in ("rest", "grpc")]
    design = Design(
        finding="protocols",
        question="REST or gRPC?",
        arms=tuple(Arm(protocol, framework=FRAMEWORK[name]) for name, protocol in arms),
        contrasts=tuple(Contrast(2 * k, 2 * k + 1, metric) for metric in USUAL for k in range(len(names))),
        least=min(4, lifetimes),
        trial_s=duration_s,
        curve=max(0, len(grid) - 2),
        timeout_s=3.0,
        seed=1,
    )
    best = [max(capacities[name, protocol] for protocol in ("rest", "grpc")) for name in names]
    return RunManifest(
        run_id="20260101-000000-synthetic",
        design=design,
        status="complete",
        rates_per_s={2 * k + 1: [round(share * best[k], 1) for share in grid[:2]] for k in range(len(names))},
        curve_per_s={2 * k + 1: [round(share * best[k], 1) for share in grid[2:]] for k in range(len(names))},
        first_look=min(4, lifetimes),
        lifetimes=[
            Lifetime(arms=[2 * k, 2 * k + 1], number=number, seconds=30.0)
            for number in range(lifetimes)
            for k in range(len(names))
        ],
        pilot={
            number: Pilot(implementation=arm[0], saturation_per_s=capacities[arm]) for number, arm in enumerate(arms)
        },
        implementations={
            name: Implementation(
                name=name,
                framework=FRAMEWORK[name],
                implementation=name,
                version="1",
                label=LABEL[name],
                runtime="synthetic",
                model="mlp",
            )
            for name in names
        },
        design_digest=design.digest(),
        code_digest="c0de",
        environment_digest="e0e0",
        machine=MACHINE,
        versions={"numpy": "1", "infscale": "0"},
        commit="0123456789abcdef0123456789abcdef01234567",
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:10:00+00:00",
    )


def _write_trial(
    path: Path,
    run: RunManifest,
    number: int,
    rate: float,
    lifetime: int,
    arrivals: Ints,
    service: Ints,
    phase: Phase = "grid",
) -> None:
    arm, implementation = run.design.arms[number], run.pilot[number].implementation
    trial_id = f"{implementation}-{arm.protocol}-{rate:g}-l{lifetime}-a1"
    response = lindley(arrivals, service) + TRANSPORT_NS
    status = np.where(response > 3_000_000_000, "timeout", "ok")
    frame = samples.synthetic(
        arrivals,
        np.minimum(response, 3_000_000_000),
        trial_id=trial_id,
        lag_ns=np.minimum(np.resize(LAG_NS, len(arrivals)), response),
        status=status,
    )
    encoding = {"rest": "json", "grpc": "protobuf"}[arm.protocol]
    manifest = manifest_of(
        msgspec.structs.replace(arm, encoding=encoding, connections=arm.limit()),
        trial_id=trial_id,
        phase=phase,
        run_id=run.run_id,
        arm_number=number,
        block=run.design.block(number),
        implementation=implementation,
        rate_per_s=rate,
        lifetime=lifetime,
        duration_s=run.design.trial_s,
        rows=len(frame),
    )
    manifest.verdict = judge_trial(frame, manifest)
    samples.write(path / "trials" / f"{trial_id}.parquet", frame)
    manifests.write(path / "trials" / f"{trial_id}.json", manifest)
