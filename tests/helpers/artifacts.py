"""Models of a user's own, of each framework's kind, which this project knows nothing of."""

import subprocess
import sys
from pathlib import Path

SAVED_MODEL = """
import sys, tensorflow as tf
spec = tf.TensorSpec
def default(x, label):
    return {"sum": tf.reduce_sum(x, 1), "label": tf.strings.upper(label)}
both = tf.function(default, input_signature=[spec([None, 3], tf.float32, "x"), spec([None], tf.string, "label")])
half = tf.function(lambda n: {"half": n / 2}, input_signature=[spec([None, 2], tf.int32, "n")])
any_ = tf.function(lambda x: {"y": x * 2}, input_signature=[spec(None, tf.float64, "x")])
tf.saved_model.save(tf.Module(), sys.argv[1], signatures={"serving_default": both, "half": half, "any": any_})
"""
HANDLER = """
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, rows, context):
        bodies = [row.get("data") or row.get("body") for row in rows]
        if any(b"bad" in bytes(body) for body in bodies):
            raise ValueError("this handler takes no bad body")
        return [{"bytes": len(body)} for body in bodies]
"""
ONE_PROTOCOL = """
class Handler:
    def initialize(self, context):
        self.initialized = True

    def handle(self, rows, context):
        return [{"bytes": len(row["%s"])} for row in rows]
"""
"""A handler that looks under one key only: "body", where REST has it, or "data", where it is sent over gRPC here."""
TRITON_MODEL = """
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            n = utils.get_input_tensor_by_name(request, "n").as_numpy()
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()
            total = n.sum(axis=1, keepdims=True) + np.array([[len(t)] for t in text[:, 0]])
            answers.append(utils.InferenceResponse([utils.Tensor("total", total.astype(np.int64))]))
        return answers
"""
TRITON_CONFIG = """
name: "adds"
backend: "python"
max_batch_size: 8
input [
  { name: "n" data_type: TYPE_INT64 dims: [ 2 ] },
  { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
]
output [ { name: "total" data_type: TYPE_INT64 dims: [ 1 ] } ]
"""

TRITON_TELLS = """
import json
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            texts = utils.get_input_tensor_by_name(request, "text").as_numpy()
            told = {"parameters": json.loads(request.parameters()), "lengths": [len(text) for text in texts]}
            outputs = [np.array([json.dumps(told).encode()], np.object_), np.zeros(1, np.float32)]
            tensors = [utils.Tensor(*pair) for pair in zip(("told", "more"), outputs)]
            answers.append(utils.InferenceResponse(tensors))
        return answers
"""
TRITON_TELLS_CONFIG = """
name: "tells"
backend: "python"
input [ { name: "text" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "told" data_type: TYPE_STRING dims: [ 1 ] }, { name: "more" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


def archive(folder: Path, handler: str = HANDLER, name: str = "counts") -> Path:
    """Write a TorchServe archive with this handler and one worker, and return its path."""
    (folder / "handler.py").write_text(handler)
    (folder / "model-config.yaml").write_text("minWorkers: 1\nmaxWorkers: 1\nmaxRetryTimeoutInSec: 3\n")
    options = {"--model-name": name, "--version": "1.0", "--handler": folder / "handler.py", "--export-path": folder}
    options["--config-file"] = folder / "model-config.yaml"
    archiver = [sys.executable, "-m", "model_archiver.model_packaging"]
    given = [str(part) for pair in options.items() for part in pair]
    subprocess.run([*archiver, *given], check=True, capture_output=True)
    return folder / f"{name}.mar"
