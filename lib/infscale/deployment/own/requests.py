"""Requests for a model of the user's own: from a payload file, or made to fit the server's metadata.

A payload file is one of these; a folder is a pool of them, in the order of their names:

- ``.npy`` or ``.npz``: rows along the first axis, arrays by input name, sent in the file's own type.
- ``.json``: a REST body of the framework, sent over REST as it stands; gRPC carries the same tensors.
- for TorchServe any file: its bytes are the body, its suffix gives REST's Content-Type, and gRPC carries it under
  the key ``data``, where TorchServe's handlers look for it.
"""

import json
import math
import mimetypes
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from infscale.deployment.client import AnsweredError
from infscale.deployment.endpoint import Endpoint, ask
from infscale.deployment.own import metadata
from infscale.deployment.own.metadata import Input, Tensors
from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.payloads import encoders as payloads
from infscale.payloads.encoders import Payload
from infscale.vocabulary import PROTOCOLS

POOL = 256
_POOL_BYTES = 1 << 24  # of generated input; JSON is several times that
_CONTENT_TYPES = {".npy": "application/x-npy", ".bin": payloads.OCTETS, ".raw": payloads.OCTETS}


@dataclass
class Own:
    """Makes requests for one endpoint; the metadata is asked for once.

    Attributes:
        file: payload file or folder; None: generate inputs from the server's metadata.
        version: of the model; empty for the server's choice.
        signature: of a SavedModel; empty for the default one.
    """

    file: Path | None = None
    version: str = ""
    signature: str = ""
    _inputs: dict[str, Input] | None = field(default=None, repr=False)
    _pools: dict[tuple[str, str, int], Payload] = field(default_factory=dict, repr=False)

    def check(self, framework: str) -> None:
        """Find out what is wrong before a server is started.

        Raises:
            ConfigError: no such file, a TorchServe model without one, or a version or signature it cannot have.
        """
        if self.file is not None and not self.file.exists():
            raise ConfigError(f"payload={str(self.file)!r} does not exist; accepted: a file, or a folder of files")
        if self.file is None and framework == "torchserve":
            raise ConfigError("payload=None: TorchServe does not tell a model's inputs; accepted: a payload file")
        if framework == "tfserving" and self.version and not self.version.isdigit():
            raise ConfigError(f"version={self.version!r}: TensorFlow Serving's are numbers")
        if framework != "tfserving" and self.signature:
            raise ConfigError(f"signature={self.signature!r}: only TensorFlow Serving's models have signatures")

    def answered(self, endpoint: Endpoint) -> bool:
        """Whether the model is loaded and a request is answered over each protocol, or with an error over one."""
        try:
            pools = [self.payload(endpoint, protocol, "", 1) for protocol in endpoint.protocols()]
        except DeploymentError:  # not loaded yet
            return False
        for pool in pools:
            try:
                ask(endpoint, pool)
            except AnsweredError:  # whoever asks next is told so, at once
                return True
            except DeploymentError:
                return False
        return True

    def payload(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        """A pool of request bodies, made once.

        Raises:
            ConfigError: the payload file cannot be read or does not fit, or an encoding that is not there.
            DeploymentError: the server does not tell its metadata.
        """
        one_of("protocol", protocol, PROTOCOLS)
        key = (protocol, encoding, batch)
        if key not in self._pools:
            self._pools[key] = self._made(endpoint, protocol, encoding, batch)
        return self._pools[key]

    def _made(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        if endpoint.framework == "torchserve":
            return self._files_as_they_are(endpoint, protocol, encoding, batch)
        known = payloads.default_encoding(endpoint.framework, protocol)
        one_of("encoding", encoding or known, (known,))
        if protocol == "rest" and self._is_json():
            _no_batch(batch)
            bodies = [file.read_bytes() for file in self._files()]
        else:
            encode = {
                ("tfserving", "rest"): metadata.tensorflow_json,
                ("tfserving", "grpc"): metadata.tensorflow_message,
                ("triton", "rest"): metadata.triton_json,
                ("triton", "grpc"): metadata.triton_message,
            }[endpoint.framework, protocol]
            target = metadata.Target(endpoint.model, self.version, self.signature)
            bodies = [encode(target, tensors) for tensors in self._tensors(endpoint, batch)]
        headers = {"content-type": payloads.JSON} if protocol == "rest" else {}
        return Payload(protocol, known, self._path(endpoint, protocol), bodies, _as_bytes, headers)

    def _path(self, endpoint: Endpoint, protocol: str) -> str:
        if protocol == "grpc":
            return metadata.PREDICT[endpoint.framework]
        name, version = quote(endpoint.model, safe=""), quote(self.version, safe="")
        if endpoint.framework == "torchserve":
            return f"/predictions/{name}" + (f"/{version}" if version else "")
        part = f"/versions/{version}" if version else ""
        return {
            "tfserving": f"/v1/models/{name}{part}:predict",
            "triton": f"/v2/models/{name}{part}/infer",
        }[endpoint.framework]

    def _files(self) -> list[Path]:
        assert self.file is not None
        files = sorted(self.file.iterdir()) if self.file.is_dir() else [self.file]
        if not files:
            raise ConfigError(f"payload={str(self.file)!r} is an empty folder; accepted: a file, or a folder of files")
        return files

    def _is_json(self) -> bool:
        return self.file is not None and all(file.suffix == ".json" for file in self._files())

    def _files_as_they_are(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        _no_batch(batch)
        one_of("encoding", encoding or "file", ("file",))
        files = self._files()
        bodies = [file.read_bytes() for file in files]
        if protocol == "grpc":
            from infscale.payloads.protos import torchserve

            spec = {"model_name": endpoint.model, "model_version": self.version}
            make = torchserve["PredictionsRequest"]
            bodies = [make(**spec, input={"data": body}).SerializeToString(deterministic=True) for body in bodies]
            return Payload("grpc", "file", payloads.TORCHSERVE_PREDICT, bodies, _as_bytes)
        kinds = {_content_type(file) for file in files}
        if len(kinds) > 1:
            found = ", ".join(sorted(kinds))
            raise ConfigError(f"payload={str(self.file)!r} holds {found}; accepted: files of one kind")
        return Payload("rest", "file", self._path(endpoint, "rest"), bodies, _as_bytes, {"content-type": kinds.pop()})

    def _tensors(self, endpoint: Endpoint, batch: int) -> list[Tensors]:
        if self._inputs is None:
            target = metadata.Target(endpoint.model, self.version, self.signature)
            self._inputs = metadata.inputs(endpoint, target)
        if self.file is None:
            return _cut(_generate(self._inputs, batch), self._inputs, batch)
        made: list[Tensors] = []
        for file in self._files():
            if file.suffix == ".json":
                _no_batch(batch)
                made.append(metadata.from_json(endpoint.framework, _json(file), self._inputs))
            else:
                made += _cut(_arrays(file, self._inputs), self._inputs, batch)
        return made


def _no_batch(batch: int) -> None:
    if batch != 1:
        raise ConfigError(f"batch={batch}: a payload file that is a request of its own fixes it; accepted: 1")


def _content_type(file: Path) -> str:
    return _CONTENT_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or payloads.OCTETS


def _as_bytes(body: bytes) -> Any:
    """What an answer of an unknown model means is its user's affair: its bytes."""
    return np.frombuffer(body, np.uint8)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"payload={str(file)!r} is no JSON: {error}") from error


def _arrays(file: Path, inputs: dict[str, Input]) -> Tensors:
    accepted = "accepted: .npy with one input's rows, .npz with arrays by input name, or .json with a REST body"
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = {str(name): loaded[name] for name in loaded} if isinstance(loaded, np.lib.npyio.NpzFile) else {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"payload={str(file)!r} cannot be read ({error}); {accepted}") from error
    if isinstance(loaded, np.ndarray):
        if len(inputs) != 1:
            raise ConfigError(f"payload={str(file)!r}: the model's inputs are {sorted(inputs)}; {accepted}")
        arrays = {next(iter(inputs)): loaded}
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        raise ConfigError(f"payload={str(file)!r} has no rows along a first axis; {accepted}")
    return arrays


def _has_batch(shape: tuple[int, ...]) -> bool:
    return bool(shape) and shape[0] == -1


def _cut(arrays: Tensors, inputs: dict[str, Input], batch: int) -> list[Tensors]:
    """Arrays of rows → requests of ``batch`` rows; an input without a batch axis gets one row as it is."""
    rows = min((len(array) for array in arrays.values()), default=1)
    shapes = {name: one.shape for name, one in inputs.items()}
    alone = {n for n, array in arrays.items() if (s := shapes.get(n)) is not None and len(s) == array.ndim - 1}
    most = 1 if alone else rows
    if not 1 <= batch <= most:
        raise ConfigError(f"batch={batch} cannot be made of {rows} rows for this model; accepted: 1 to {most}")
    starts = range(0, rows - batch + 1, batch)
    return [{n: np.asarray(a[i] if n in alone else a[i : i + batch]) for n, a in arrays.items()} for i in starts]


def _generate(inputs: dict[str, Input], batch: int) -> Tensors:
    """Seeded rows for every input: uniform in [0, 1), whole numbers below 10, short texts."""
    shapes = {name: _row_shape(name, one) for name, one in inputs.items()}
    each = sum(8 * math.prod(shape) for shape in shapes.values())
    rows = max(batch, min(POOL, _POOL_BYTES // max(each, 1)))
    rng = np.random.default_rng(1)
    return {name: _values(rng, inputs[name].dtype, (rows, *shape)) for name, shape in shapes.items()}


def _row_shape(name: str, one: Input) -> tuple[int, ...]:
    if one.shape is not None:
        row = one.shape[1:] if _has_batch(one.shape) else one.shape
        if -1 not in row:
            return row
    shape = "any" if one.shape is None else list(one.shape)
    raise ConfigError(f"the input {name!r} takes the shape {shape}, so inputs cannot be made up; give a payload file")


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype == "object":
        return np.char.add("text-", rng.integers(0, 10**6, shape).astype(str))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 10, shape).astype(dtype)
