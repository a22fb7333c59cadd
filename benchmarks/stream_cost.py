"""What a message of a stream costs the client: CPU per message at set rates, and messages a core when saturated.

The null server emits messages of 64 bytes; the engine reads them over gRPC and as events over HTTP/1.1, grpcio's Python
client over gRPC, in alternation, so that ratios are of one run. CPU is that of the client's process while it reads.

    python -m benchmarks.stream_cost [--seconds 4] [--rounds 3]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import host_state, run
from benchmarks.peers.grpcio_stream import Order
from benchmarks.peers.peers import ROOT
from benchmarks.truth.table import report
from infscale.load.engine import run as engine
from infscale.load.engine.interfaces import Streaming
from infscale.load.null_server import Emission, NullServer, evenly, null_server

RATES_PER_S = (20_000, 10_000, 5_000, 2_000, 500)
STREAMS = 100
SIZE = 64
SATURATED, OF_EACH, PER_WRITE = 4, 100_000, 64
"""Streams at a time when saturated, their messages, and how many of them the server gathers in a write."""
GOALS = {"cpu_us": 15.0, "per_core": 100_000.0}
"""Most CPU per message at 20,000/s, µs; fewest messages a second of CPU when saturated."""
URLS = {
    "gRPC": ("grpc", "grpc://{grpc}/inference.Service/Stream"),
    "SSE, HTTP/1.1": ("sse", "http://{rest}/v1/stream"),
}


def ours(way: str, server: NullServer, streams: int, step_s: float, count: int) -> tuple[int, float, float]:
    """Read streams with the engine; returns messages, CPU and wall time, s."""
    kind, url = URLS[way]
    connections = 1 if kind == "grpc" else streams
    result = engine.run(
        url.format(grpc=server.grpc, rest=server.rest),
        [b"a body of no meaning"],
        [np.arange(streams, dtype=np.int64) * round(step_s * 1e9)],
        [np.zeros(streams, np.int32)],
        timeout_s=120,
        connections=connections,
        open_first=connections,
        streaming=Streaming(kind, count),
    )
    rows, chunks = result.samples, result.chunks
    if set(rows["status"]) != {"ok"} or chunks is None:
        raise SystemExit(f"{way}: not every stream succeeded: {rows['status'].value_counts().to_dict()}")
    return len(chunks), result.generator.cpu_s, float(rows["done_ns"].max()) / 1e9


def grpcio(server: NullServer, streams: int, step_s: float) -> tuple[int, float, float]:
    """Read the same streams with grpcio's client, in a process of its own."""
    order = Order(server.grpc, "/inference.Service/Stream", streams, step_s)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.peers.grpcio_stream", json.dumps(asdict(order))]
        run(command, Path(folder), timeout_s=180, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'lib'}"})
        found = json.loads((Path(folder) / "stdout").read_text())
    return int(found["messages"]), found["cpu_s"], found["wall_s"]


def _row(rate: float, client: str, turn: int, messages: int, cpu_s: float, wall_s: float) -> dict[str, object]:
    return {
        "rate_per_s": rate,
        "client": client,
        "turn": turn,
        "messages": messages,
        "cpu_us": 1e6 * cpu_s / messages,
        "per_core": messages / cpu_s,
        "read_per_s": messages / wall_s,
    }


def turns(rate: float, seconds: float, rounds: int) -> list[dict[str, object]]:
    """Read streams of one rate, 0 for the most, with each client in turn."""
    streams = STREAMS if rate else SATURATED
    interval_ns = round(1e9 * streams / rate) if rate else 0
    count = max(2, round(seconds * 1e9 / interval_ns)) if rate else OF_EACH
    rows = []
    step_s = interval_ns / 1e9 / streams
    emission = Emission(evenly(count, interval_ns, interval_ns), SIZE, per_write=1 if rate else PER_WRITE)
    for turn in range(rounds):
        for client in (*URLS, "grpcio"):
            with null_server(stream=emission) as server:
                if client == "grpcio":
                    found = grpcio(server, streams, step_s)
                else:
                    found = ours(client, server, streams, step_s, count)
            rows.append(_row(rate, client, turn, *found))
    return rows


def main() -> None:
    """Run all, and report medians, ratios to grpcio's client, and the goals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="of each trial at a rate")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each client")
    options = parser.parse_args()
    host = host_state()
    every = [row for rate in (*RATES_PER_S, 0) for row in turns(rate, options.seconds, options.rounds)]
    table = pd.DataFrame(every).groupby(["rate_per_s", "client"], sort=False).median(numeric_only=True)
    table = table.drop(columns="turn").reset_index()
    peers = table[table["client"] == "grpcio"].set_index("rate_per_s")["cpu_us"]
    table["cpu_of_grpcio"] = table["cpu_us"] / table["rate_per_s"].map(peers)
    ours_only = table["client"] != "grpcio"
    good = np.where(
        table["rate_per_s"] == 0, table["per_core"] >= GOALS["per_core"], table["cpu_us"] <= GOALS["cpu_us"]
    )
    judged = ours_only & table["rate_per_s"].isin([0, RATES_PER_S[0]])
    table["ok"] = np.where(judged, np.where(good, "yes", "NO"), "–")
    report("stream-cost", table.assign(**host.since()))


if __name__ == "__main__":
    main()
