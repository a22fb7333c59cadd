"""A whole fake run for tests: folders, manifests and rows, drawn from simulated FIFO queues.

Nothing here was measured. The capacity of each arm is an argument, so that a test can turn the data around.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infscale.load.null_server import lindley
from infscale.records import samples
from infscale.records.manifest import write_json
from infscale.records.runs import trials_of_grid
from infscale.records.verdict import judge

Ints = NDArray[np.int64]

TFSERVING, TORCHSERVE = "tfserving-embedded", "torchserve"
IMPLEMENTATIONS = {
    TFSERVING: {
        "framework": "tfserving",
        "name": TFSERVING,
        "version": "1",
        "label": "TensorFlow Serving API, embedded (our implementation)",
        "runtime": "synthetic",
    },
    TORCHSERVE: {
        "framework": "torchserve",
        "name": TORCHSERVE,
        "version": "1",
        "label": "TorchServe",
        "runtime": "synthetic",
    },
}
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


def manifest_of(**changes: Any) -> dict[str, Any]:
    """A trial's manifest in which generator and host are sound."""
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "trial_id": "t",
        "run_id": "synthetic",
        "phase": "grid",
        "framework": "torchserve",
        "implementation": TORCHSERVE,
        "protocol": "rest",
        "encoding": "json",
        "model": "mlp",
        "batch": 1,
        "rate_per_s": 400.0,
        "ceiling_per_s": 60_000.0,
        "duration_s": 2.0,
        "timeout_s": 3.0,
        "replicate": 0,
        "attempt": 1,
        "seeds": {},
        "engine": {"cpu_s": 0.2, "cpu_user_s": 0.1, "cpu_system_s": 0.1, "wall_s": 2.1, "run_delay_s": 0.01},
        "host": {"same_host": True, "loadavg_1m": 0.4, "steal_fraction": 0.0, "cores": 2, "pinned": False},
        "arm": {"connections": 256},
        "server": {"command": [], "pids": []},
        "started_at": "2026-01-01T00:00:00+00:00",
        "rows": 0,
    }
    return manifest | changes


def build(
    folder: Path,
    capacities: Mapping[tuple[str, str], float] = GRPC_FASTER,
    *,
    replicates: int = 3,
    duration_s: float = 2.0,
    grid: tuple[float, ...] = GRID,
    seed: int = 1,
    spread: float = 0.02,
    shrink: float | None = None,
) -> Path:
    """Write a run below ``folder`` and return its path.

    ``spread`` is the standard deviation of the logarithm of an arm's speed between replicates;
    ``shrink`` is another capacity for all arms than the one that the rates were chosen for.
    """
    names = sorted({name for name, _ in capacities})
    run = _run_manifest(names, capacities, replicates, duration_s, grid)
    path = folder / str(run["run_id"])
    (path / "trials").mkdir(parents=True)
    write_json(path / "run.json", run)
    rng = np.random.default_rng(seed)
    for replicate in range(replicates):
        speed = {arm: float(np.exp(rng.normal(0, spread))) for arm in sorted(capacities)}
        for name in names:
            for rate in run["rates_per_s"][name]:
                arrivals = poisson(rng, rate, duration_s)
                for protocol in ("rest", "grpc"):
                    service = 1e9 / (shrink or capacities[name, protocol]) * speed[name, protocol]
                    trial = {"implementation": name, "protocol": protocol, "rate_per_s": rate, "replicate": replicate}
                    _write_trial(path, run, trial, arrivals, rng.exponential(service, len(arrivals)).astype(np.int64))
    return path


def _run_manifest(
    names: list[str],
    capacities: Mapping[tuple[str, str], float],
    replicates: int,
    duration_s: float,
    grid: tuple[float, ...],
) -> dict[str, Any]:
    best = {name: max(rate for (other, _), rate in capacities.items() if other == name) for name in names}
    return {
        "schema_version": 1,
        "run_id": "20260101-000000-synthetic",
        "experiment": "protocol-grid",
        "profile": "quick",
        "status": "complete",
        "config": {
            "frameworks": [IMPLEMENTATIONS[name]["framework"] for name in names],
            "protocols": ["rest", "grpc"],
            "model": "mlp",
            "replicates": replicates,
            "trial_s": duration_s,
            "rates_n": len(grid),
            "timeout_s": 3.0,
            "seed": 1,
        },
        "rates_per_s": {name: [round(share * best[name], 1) for share in grid] for name in names},
        "pilot": {},
        "machine": {
            "cpu": "Synthetic CPU",
            "cores": 2,
            "memory_gib": 8.0,
            "kernel": "6",
            "governor": None,
            "os": "Linux",
        },
        "versions": {"numpy": "1", "infscale": "0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "code_digest": "c0de",
        "environment_digest": "e0e0",
        "clock": "CLOCK_MONOTONIC",
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:10:00+00:00",
        "implementations": {name: IMPLEMENTATIONS[name] for name in names},
    }


def _write_trial(path: Path, run: Mapping[str, Any], trial: dict[str, Any], arrivals: Ints, service: Ints) -> None:
    name, protocol, rate = trial["implementation"], trial["protocol"], trial["rate_per_s"]
    trial_id = f"{name}-{protocol}-{rate:g}-r{trial['replicate']}-a1"
    response = lindley(arrivals, service) + TRANSPORT_NS
    status = np.where(response > 3_000_000_000, "timeout", "ok")
    frame = samples.synthetic(
        arrivals,
        np.minimum(response, 3_000_000_000),
        trial_id=trial_id,
        lag_ns=np.resize(LAG_NS, len(arrivals)),
        status=status,
    )
    manifest = manifest_of(
        **trial,
        trial_id=trial_id,
        run_id=run["run_id"],
        framework=IMPLEMENTATIONS[name]["framework"],
        encoding={"rest": "json", "grpc": "protobuf"}[protocol],
        duration_s=run["config"]["trial_s"],
        rows=len(frame),
    )
    manifest["verdict"] = judge(frame, manifest, trials_of_grid(run)).as_dict()
    samples.write(path / "trials" / f"{trial_id}.parquet", frame)
    write_json(path / "trials" / f"{trial_id}.json", manifest)
