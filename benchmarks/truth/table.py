"""What the truth benchmarks share: one trial of the engine, percentiles in µs, a table printed and stored as CSV."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import host_state
from infscale.load.engine import run as engine
from infscale.load.null_server import NullServer, Times
from infscale.machine import describe

RESULTS = Path(__file__).parents[1] / "results" / "truth"
BODIES = [b"a body of no meaning, number %02d" % i for i in range(64)]


def url(protocol: str, server: NullServer) -> str:
    """The engine's URL of a null server over "rest" or "grpc"."""
    return f"http://{server.rest}/v1/infer" if protocol == "rest" else f"grpc://{server.grpc}/inference.Service/Infer"


def trial(protocol: str, server: NullServer, schedule: Times, **limits: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of one trial, and what to say of host and engine; every request must have succeeded."""
    host = host_state()
    choice = (np.arange(len(schedule)) % len(BODIES)).astype(np.int32)
    result = engine.run(url(protocol, server), BODIES, [schedule], [choice], timeout_s=30, **limits)
    rows = result.samples
    outcomes = set(rows["status"])
    if outcomes != {"ok"}:
        raise SystemExit(f"{protocol}: not every request succeeded: {outcomes}")
    policies = {shard.scheduler for shard in result.generator.shards}
    said = {"engine": "+".join(sorted(policies)), "server": server.scheduler, **host.since()}
    return rows, said


def micros(values: "pd.Series[int] | npt.NDArray[np.int64]", level: float) -> float:
    """A quantile of nanoseconds, in µs."""
    return float(np.quantile(np.asarray(values), level)) / 1000


def report(name: str, table: pd.DataFrame) -> None:
    """Print a table and the machine, and write both under :data:`RESULTS`."""
    machine = "; ".join(f"{key}: {value}" for key, value in msgspec.structs.asdict(describe()).items())
    text = table.to_string(index=False, float_format=lambda v: f"{v:.3g}" if abs(v) < 1 else f"{v:,.0f}")
    print(f"{text}\n\n{machine}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")
    (RESULTS / f"{name}.txt").write_text(f"{text}\n\n{machine}\n", encoding="utf-8")
