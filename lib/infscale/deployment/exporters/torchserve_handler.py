"""The handler in every exported .mar: it takes JSON, raw fp32, .npy and encoded images over REST and gRPC.

It runs inside TorchServe's worker, where this project is not installed, so that it imports nothing of it. A REST body
arrives as ``row["body"]`` (JSON is already decoded by TorchServe), and a gRPC body under the key of its input map; the
key, or the content type, tells the encoding.
"""

import base64
import io
import json
import os
import time
from typing import Any

import numpy as np
import torch
from ts.utils.util import PredictionException

ENCODINGS = ("raw", "npy", "image", "json")
Array = np.ndarray[Any, Any]
Row = dict[str, Any]
"""A request as TorchServe hands it over: bytes, or decoded JSON, by key."""


class Handler:
    """Runs the model on batches of requests; each is answered in the encoding that it used."""

    def initialize(self, context: Any) -> None:
        """Load the TorchScript module; TorchServe calls this once in each worker."""
        folder = context.system_properties["model_dir"]
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.module = torch.jit.load(os.path.join(folder, "model.pt"), map_location="cpu").eval()
        with open(os.path.join(folder, "signature.json")) as file:
            signature = json.load(file)
        self.shape, self.dtype = tuple(signature["input_shape"]), signature["dtype"]
        self.wait_s = signature["wait_s"]

    def handle(self, rows: list[Row], context: Any) -> list[Any]:
        """Decode a batch of requests, run the module once, and encode each answer."""
        decoded = [self._decode(row, context, i) for i, row in enumerate(rows)]
        batch = np.concatenate([array for array, _ in decoded])
        if self.wait_s:
            time.sleep(self.wait_s)  # as for a device
        with torch.inference_mode():
            output = self.module(torch.from_numpy(batch)).numpy()
        answers, start = [], 0
        for i, (array, encoding) in enumerate(decoded):
            answers.append(self._encode(output[start : start + len(array)], encoding, context, i))
            start += len(array)
        return answers

    def _decode(self, row: Row, context: Any, index: int) -> tuple[Array, str]:
        key = next((k for k in ENCODINGS if k in row), None)
        body = row[key] if key else row.get("body", row.get("data"))
        if isinstance(body, (dict, list)):
            return self._from_json(body), "json"
        kind = key or self._kind_of(context, index)
        try:
            return self._from_bytes(bytes(body or b""), kind), kind
        except PredictionException:
            raise
        except Exception as error:
            raise PredictionException(f"cannot decode the body as {kind}: {error}", 400) from error

    def _kind_of(self, context: Any, index: int) -> str:
        headers = (context.get_request_header(index, name) for name in ("Content-Type", "content-type"))
        content_type = next((text for text in headers if text), "").partition(";")[0]
        kinds = {"application/octet-stream": "raw", "application/x-npy": "npy", "application/json": "json"}
        return "image" if content_type.startswith("image/") else kinds.get(content_type, "raw")

    def _from_json(self, body: Any) -> Array:
        if isinstance(body, dict) and isinstance(body.get("b64"), str):
            return self._from_bytes(base64.b64decode(body["b64"]), "raw")
        instances = body.get("instances") if isinstance(body, dict) else body
        try:
            values = np.array(instances, dtype=np.float32)
            if self.dtype == "uint8" and not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
                raise ValueError("pixels are whole numbers from 0 to 255")
            return self._shaped(values)
        except (TypeError, ValueError) as error:
            expected = f'expected {{"instances": [...]}} with rows of shape {self.shape}'
            raise PredictionException(f"{expected}: {error}", 400) from error

    def _from_bytes(self, body: bytes, kind: str) -> Array:
        if kind == "json":
            return self._from_json(json.loads(body))
        if self.dtype == "bytes":
            return self._from_file(body)
        if kind == "npy":
            return self._shaped(np.load(io.BytesIO(body), allow_pickle=False))
        if kind == "image":
            from PIL import Image

            with Image.open(io.BytesIO(body)) as image:
                grey = image.convert("L").resize((28, 28))
            return self._shaped(np.asarray(grey, dtype=np.float32) / np.float32(255))
        if self.dtype == "uint8":
            return self._shaped(np.frombuffer(body, dtype=np.uint8))
        if len(body) % 4:
            raise PredictionException(f"{len(body)} bytes are not a whole number of fp32 values", 400)
        return self._shaped(np.frombuffer(body, dtype="<f4"))

    def _from_file(self, body: bytes) -> Array:
        """Return the pixels of one JPEG file."""
        from PIL import Image

        with Image.open(io.BytesIO(body)) as image:
            return np.asarray(image.convert("RGB"))[None]

    def _shaped(self, array: np.ndarray[Any, Any]) -> Array:
        row = int(np.prod(self.shape))
        if array.size == 0 or array.size % row:
            raise PredictionException(f"{array.size} values are not rows of shape {self.shape}", 400)
        return np.ascontiguousarray(array.reshape(-1, *self.shape), dtype=self.dtype)

    def _encode(self, output: Array, encoding: str, context: Any, index: int) -> Any:
        if encoding == "json":
            context.set_response_content_type(index, "application/json")
            rows = output.reshape(len(output), -1)
            return json.dumps({"predictions": [[float(str(v)) for v in row] for row in rows]})
        if encoding == "npy":
            context.set_response_content_type(index, "application/x-npy")
            file = io.BytesIO()
            np.save(file, output)
            return bytearray(file.getvalue())
        context.set_response_content_type(index, "application/octet-stream")
        return bytearray(output.astype("<f4").tobytes())
