"""A toy framework in one module: a server over HTTP and gRPC, and the object that makes it a framework.

The pages add-a-framework.md and add-an-encoding.md go through it. Run as a script (``python toy.py REST_PORT
GRPC_PORT MODEL``) it is the server.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from infscale.deployment import Endpoint, Framework, prometheus
from infscale.deployment.endpoint import Requests, answers
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, choose_ports
from infscale.deployment.processes.process import Process, serving
from infscale.models.reference import Array, Rows, model
from infscale.payloads import codecs
from infscale.payloads.encoders import JSON, OCTETS, Encoder, Interface

# -------------------------------------------------------------------------------------------- an encoding

HALF = "application/x-fp16"


def half(_: str, rows: Rows) -> bytes:
    """Return the bytes of the rows as little-endian fp16."""
    return rows.astype("<f2").tobytes()


def from_half(body: bytes) -> Array:
    """Return little-endian fp16 as a flat array of fp32."""
    return np.frombuffer(body, dtype="<f2").astype(np.float32)


# ---------------------------------------------------------------------------------------------- the server


class Server:
    """Predicts with the numpy reference, and counts predictions."""

    def __init__(self, name: str) -> None:
        self.name, self.served, self.requests = name, model(name), 0

    def predict(self, flat: Array) -> Array:
        self.requests += 1
        return self.served.predict(flat.reshape(-1, *self.served.input_shape))

    def listen(self, rest_port: int, grpc_port: int) -> None:
        import grpc

        def call(body: bytes, _: object) -> bytes:
            return self.predict(codecs.from_raw(body)).tobytes()

        handlers = {"Predict": grpc.unary_unary_rpc_method_handler(call)}
        server = grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("toy.Toy", handlers)])
        server.add_insecure_port(f"127.0.0.1:{grpc_port}")
        server.start()
        Http.toy = self
        ThreadingHTTPServer.request_queue_size = 512
        ThreadingHTTPServer(("127.0.0.1", rest_port), Http).serve_forever()


class Http(BaseHTTPRequestHandler):
    toy: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write for each answer
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        page = f"# TYPE toy_requests_total counter\ntoy_requests_total {self.toy.requests}\n"
        self.answer(200, "text/plain", page.encode())

    def do_POST(self) -> None:
        body, kind = self.rfile.read(int(self.headers["content-length"])), self.headers["content-type"]
        if self.path != f"/predict/{self.toy.name}":
            self.answer(404, "text/plain", b"no such model")
        elif kind == OCTETS:
            self.answer(200, OCTETS, self.toy.predict(codecs.from_raw(body)).tobytes())
        elif kind == HALF:
            self.answer(200, HALF, half("", self.toy.predict(from_half(body))))
        else:
            rows = np.array(json.loads(body)["instances"], np.float32)
            self.answer(200, JSON, json.dumps({"predictions": self.toy.predict(rows).tolist()}).encode())

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


# ------------------------------------------------------------------------------------------- the framework

INTERFACE = Interface(
    "toy",
    {
        "rest": {
            "json": Encoder("/predict/{model}", JSON, codecs.instances, codecs.predictions),
            "raw": Encoder("/predict/{model}", OCTETS, codecs.raw, codecs.from_raw),
            "half": Encoder("/predict/{model}", HALF, half, from_half),
        },
        "grpc": {"raw": Encoder("/toy.Toy/Predict", None, codecs.raw, codecs.from_raw)},
    },
    gzip=("grpc",),
)


@contextlib.contextmanager
def start(
    model: str,
    *,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
    own: Requests | None = None,
    place: Place = HERE,
) -> Iterator[Endpoint]:
    ports = choose_ports({"rest_port": rest_port, "grpc_port": grpc_port}, place)
    rest, grpc = (f"{place.host}:{port}" for port in ports)

    def endpoint(process: Process) -> Endpoint:
        served = {"model": model, "rest": rest, "grpc": grpc, "metrics": f"{rest}/metrics"}
        named = {"framework": "toy", "implementation": "toy", "version": "1", "label": "Toy", "runtime": "numpy"}
        living = {"processes": process.tree, "log_tail": process.log_tail, "ready_s": process.ready_s}
        return Endpoint(**named, **served, interface=INTERFACE, command=process.command, **living)  # type: ignore[arg-type]

    command = [sys.executable, __file__, *map(str, ports), model]
    with (
        working_folder("toy") as run,
        serving(
            command,
            what="Toy",
            log=(log_folder or run) / "toy.log",
            ports=ports,
            ready=lambda process: answers(endpoint(process)),
            pid_log=pid_log,
            place=place,
        ) as process,
    ):
        yield endpoint(process)


def statistics(endpoint: Endpoint) -> dict[str, float]:
    return {"requests": prometheus.scrape(endpoint)["toy_requests_total"]}


TOY = Framework("toy", "Toy", start, INTERFACE, statistics)


if __name__ == "__main__":
    Server(sys.argv[3]).listen(int(sys.argv[1]), int(sys.argv[2]))
