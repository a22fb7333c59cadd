"""CPU per request of the embedded TensorFlow Serving API, split into transport, decode, model and encode.

Transport is measured in a server of its own with equal body bytes over both protocols (:mod:`tfserving_transport`);
whole requests on the real one with ``mlp``; decode, model and encode by calling the server's functions in a loop. CPU
is user + system of the server's processes.

    python -m benchmarks.embedded.split [--rounds 10] [--rate 1500] [--seconds 3]
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from infscale.analysis.intervals import geometric_mean
from infscale.deployment import FRAMEWORKS, deploy
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import free_ports
from infscale.deployment.processes.process import Process, wait_ready
from infscale.load import schedule as arrivals
from infscale.load.engine import run as engine
from infscale.models.reference import inputs

CONNECTIONS = 8
BODY_BYTES = 3_200
PROTOCOLS = ("rest", "grpc")


def load(url: str, bodies: list[bytes], headers: dict[str, str], rate: float, seconds: float, seed: int) -> int:
    """Offer Poisson arrivals on eight connections; returns how many requests succeeded: all, or it is an error."""
    schedule = arrivals.poisson(rate, seconds, np.random.SeedSequence(seed))
    choice = arrivals.payload_choice(len(schedule), len(bodies), np.random.SeedSequence(seed + 1))
    options: dict[str, Any] = {"connections": CONNECTIONS, "open_first": CONNECTIONS, "headers": headers}
    result = engine.run(url, bodies, [schedule], [choice], timeout_s=5, **options)
    bad = result.samples["status"] != "ok"
    if bad.any():
        sys.exit(f"{url}: {bad.sum()} of {len(bad)} requests failed: {result.generator.error}")
    return len(schedule)


def cpu_s(processes: Callable[[], list[Any]]) -> float:
    """User and system seconds of a server's processes."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes()))


@contextmanager
def transport() -> Iterator[tuple[Process, dict[str, str]]]:
    """Envoy with the constant application; URLs by protocol."""
    port, rest_port = free_ports(2)
    with working_folder("split") as folder, _envoy(port, rest_port, folder) as process:
        urls = {"rest": f"http://127.0.0.1:{rest_port}/v1", "grpc": f"grpc://127.0.0.1:{port}/a.B/C"}
        wait_ready(process, lambda: process.owns_port(rest_port), what="the transport", timeout_s=30)
        yield process, urls


def _envoy(port: int, rest_port: int, folder: Path) -> Process:
    from infscale.servers.asgi import envoy

    rest = envoy.tcp_address("127.0.0.1", rest_port)
    config = envoy.configuration("benchmarks.embedded.transport:app", "127.0.0.1", port, [rest])
    environment = {**envoy.environment(), "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    return Process(envoy.command(config), log=folder / "log", env=environment)


def transport_costs(rounds: int, rate: float, seconds: float) -> dict[str, list[float]]:
    """µs of the transport's CPU per request, by protocol, in alternation, with equal body bytes."""
    message = bytes(range(32, 112)) * (BODY_BYTES // 80)
    # A gRPC message has a prefix of five bytes: the REST body is as long as both.
    bodies = {"rest": [b"12345" + message], "grpc": [message]}
    costs: dict[str, list[float]] = {p: [] for p in PROTOCOLS}
    with transport() as (process, urls):
        for p in PROTOCOLS:
            load(urls[p], bodies[p], {}, rate, 1.0, 99)
        for turn in range(rounds):
            for p in PROTOCOLS if turn % 2 else reversed(PROTOCOLS):
                before = cpu_s(process.tree)
                count = load(urls[p], bodies[p], {}, rate, seconds, turn)
                costs[p].append(1e6 * (cpu_s(process.tree) - before) / count)
    return costs


def whole_costs(rounds: int, rate: float, seconds: float) -> dict[str, list[float]]:
    """µs of the server's CPU per predict of one row of ``mlp``, by protocol, in alternation."""
    costs: dict[str, list[float]] = {p: [] for p in PROTOCOLS}
    scheme = {"rest": "http", "grpc": "grpc"}
    with deploy("tfserving", "mlp") as endpoint:
        pools = {p: endpoint.payload(p) for p in PROTOCOLS}
        urls = {p: f"{scheme[p]}://{endpoint.address(p)}{pools[p].path}" for p in PROTOCOLS}
        for turn in range(-1, rounds):
            for p in PROTOCOLS if turn % 2 else reversed(PROTOCOLS):
                before = cpu_s(endpoint.processes)
                count = load(urls[p], list(pools[p].bodies), dict(pools[p].headers), rate, seconds, turn + 1)
                if turn >= 0:
                    costs[p].append(1e6 * (cpu_s(endpoint.processes) - before) / count)
    return costs


def parts() -> dict[str, dict[str, float]]:
    """µs of decode, model and encode of one row of ``mlp``, by protocol: medians of 20 loops."""
    from tensorflow_serving.apis import predict_pb2

    from infscale.deployment.exporters import savedmodel
    from infscale.models.reference import model
    from infscale.servers.embedded.api import jsonin, jsonout
    from infscale.servers.embedded.runtime import predict, tensors
    from infscale.servers.embedded.runtime.servable import Servable

    with working_folder("split") as folder:
        savedmodel.write(model("mlp"), folder)
        servable = Servable("mlp", 1, folder / "mlp" / "1")
    signature = predict.signature_of(servable, "")
    rows = inputs("mlp", 1)
    bodies = {p: FRAMEWORKS["tfserving"].interface.payload(p, "mlp", rows).bodies[0] for p in PROTOCOLS}

    def of_json() -> dict[str, Any]:
        return jsonin.inputs(jsonin.parse(bodies["rest"]), signature, bodies["rest"])[1]

    def of_proto() -> dict[str, Any]:
        request = predict_pb2.PredictRequest.FromString(bodies["grpc"])
        return {alias: tensors.decode(proto, alias) for alias, proto in request.inputs.items()}

    def to_proto() -> bytes:
        response = predict_pb2.PredictResponse()
        for alias, array in outputs.items():
            tensors.encode(array, response.outputs[alias])
        data: bytes = response.SerializeToString()
        return data

    arrays = of_proto()
    outputs = signature.run(arrays)
    run = _micros(lambda: signature.run(arrays))
    return {
        "rest": {"decode": _micros(of_json), "model": run, "encode": _micros(lambda: jsonout.rows(outputs))},
        "grpc": {"decode": _micros(of_proto), "model": run, "encode": _micros(to_proto)},
    }


def _micros(call: Callable[[], Any], loops: int = 20, count: int = 300) -> float:
    times = []
    for _ in range(loops):
        began = time.process_time()
        for _ in range(count):
            call()
        times.append((time.process_time() - began) / count)
    return 1e6 * float(np.median(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1500)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    sizes = options.rounds, options.rate, options.seconds
    lone, whole, inside = transport_costs(*sizes), whole_costs(*sizes), parts()
    ratio = geometric_mean(np.array(lone["rest"]) / np.array(lone["grpc"]))
    print(
        f"{options.rounds} rounds of {options.rate:g}/s for {options.seconds:g} s; "
        f"load average {os.getloadavg()[0]:.2f}"
    )
    print(f"transport, equal bytes: REST ÷ gRPC = {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
    print("µs CPU per request   transport   decode    model   encode   rest of it    whole")
    for p in PROTOCOLS:
        told = [float(np.median(lone[p])), *inside[p].values()]
        total = float(np.median(whole[p]))
        print(f"{p:18}" + "".join(f"{value:10.1f}" for value in (*told, total - sum(told), total)))


if __name__ == "__main__":
    main()
