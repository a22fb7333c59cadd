"""The embedded TensorFlow Serving API as a process, and what requests to it are made of."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from infscale.deployment.processes.ports import free_ports

START_SECONDS = 180.0


def work_for(seconds: Any) -> Any:
    """Keep TensorFlow busy for ``seconds``: a signature whose time a test sets."""
    end = tf.timestamp() + tf.cast(seconds, tf.float64)
    (rounds,) = tf.while_loop(lambda n: tf.timestamp() < end, lambda n: n + 1, [0.0])
    return {"y": tf.reshape(rounds * 0.0, [1])}


def spec(name: str, shape: Any = (None,), dtype: Any = tf.float32) -> Any:
    """Return the description of one input of a signature."""
    return tf.TensorSpec(shape, dtype, name=name)


class Server:
    """The real command as a process of ours, on free ports."""

    def __init__(self, base: Path | None, log: Path, *flags: str) -> None:
        self.grpc_port, self.rest_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.rest_port}"
        command = [sys.executable, "-m", "infscale.servers.embedded", f"--port={self.grpc_port}"]
        command += ["--rest_api_port", str(self.rest_port), *flags]
        command += ["--model_name=m", f"--model_base_path={base}"] if base else []
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def wait_ready(self, name: str = "m") -> None:
        until(lambda: self.status(name), START_SECONDS, self)

    def status(self, name: str = "m") -> dict[str, str]:
        """Return state by version, empty while the server or the model is not there."""
        try:
            answer = requests.get(f"{self.url}/v1/models/{name}", timeout=5)
        except requests.ConnectionError:
            return {}
        return {entry["version"]: entry["state"] for entry in answer.json().get("model_version_status", [])}

    def post(self, body: Any, path: str = "/v1/models/m:predict") -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(self.url + path, data=data, timeout=20)

    def stop(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


def until(condition: Callable[[], Any], seconds: float, server: Server) -> None:
    """Wait for the condition; fail with the server's log after ``seconds``, or at once when the server ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)


def predict_request(signature: str = "", *, name: str = "m", **inputs: Any) -> predict_pb2.PredictRequest:
    """Return a Predict request with these inputs: arrays, or tensors as they are."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        proto = value if not isinstance(value, np.ndarray) else tf.make_tensor_proto(value)
        request.inputs[alias].CopyFrom(proto)
    return request


def floats(*values: float) -> Any:
    """Return the values as an array of float32."""
    return np.array(values, np.float32)


def run_command(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the server's command to its end: for commands that it refuses."""
    return subprocess.run(
        [sys.executable, "-m", "infscale.servers.embedded", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def broken_model(folder: Path) -> Path:
    """Write a version 1 whose SavedModel is broken, and return its base path."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"broken")
    return folder
