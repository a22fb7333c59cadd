"""Requests for a model of the user's own: from a payload file, or made up to fit the inputs that the server describes.

A payload file is one of these; a folder is a pool of them, in the order of their names:

- ``.npy`` or ``.npz``: rows along the first axis, arrays by input name, sent in the file's own type.
- ``.json``: a REST body of the framework, sent over REST as it stands; gRPC carries the same tensors, signature,
  parameters and choice of outputs.
- where the server takes any bytes (TorchServe), any file: its bytes are the body, and its suffix gives REST's
  Content-Type.
"""

import contextlib
import json
import math
import mimetypes
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from infscale.deployment.client import AnsweredError
from infscale.deployment.endpoint import Endpoint, ask
from infscale.deployment.framework import FileApi, TensorApi
from infscale.errors import ConfigError, DeploymentError, one_of
from infscale.payloads.encoders import JSON, OCTETS, Payload
from infscale.payloads.tensors import Input, Target, Tensor, Tensors
from infscale.vocabulary import PROTOCOLS

POOL = 256
"""Number of rows of made-up inputs."""
_POOL_BYTES = 1 << 24  # of made-up inputs; as JSON they take several times as many
_CONTENT_TYPES = {".npy": "application/x-npy", ".bin": OCTETS, ".raw": OCTETS}


@dataclass
class Own:
    """Makes the requests for one endpoint. The inputs of a signature are read from the server once.

    Attributes:
        api: how the framework takes requests.
        title: the framework's, for messages.
        file: payload file or folder; None to make up inputs that fit what the server describes.
        version: of the model; empty for the server's choice.
        signature: of the model; empty for the default one.
    """

    api: TensorApi | FileApi
    title: str
    file: Path | None = None
    version: str = ""
    signature: str = ""
    _inputs: dict[str, dict[str, Input]] = field(default_factory=dict, repr=False)
    _pools: dict[tuple[str, str, int], Payload] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Check what can be checked before a server is started.

        Raises:
            ConfigError: no such file, no file where one is needed, or a version or signature that a model cannot have.
        """
        if self.file is not None and not self.file.exists():
            raise ConfigError(f"payload={str(self.file)!r} does not exist; accepted: a file, or a folder of files")
        numeric_versions, signatures = False, False
        if isinstance(self.api, TensorApi):
            numeric_versions, signatures = self.api.numeric_versions, self.api.signature_of is not None
        elif self.file is None:
            raise ConfigError(f"payload=None: {self.title} does not tell a model's inputs; accepted: a payload file")
        if numeric_versions and self.version and not self.version.isdigit():
            raise ConfigError(f"version={self.version!r}: versions of {self.title}'s models are numbers")
        if self.signature and not signatures:
            raise ConfigError(f"signature={self.signature!r}: {self.title}'s models have no signatures")

    def answered(self, endpoint: Endpoint) -> bool:
        """Return whether the model answers over each protocol, or refuses a request with an error.

        Raises:
            UnansweredError: it does not, for now, with the reason.
            DeploymentError: its description is none.
        """
        with contextlib.suppress(AnsweredError):  # whoever asks next gets the server's own words at once
            for protocol in endpoint.protocols():
                ask(endpoint, self.payload(endpoint, protocol, "", 1))
        return True

    def payload(self, endpoint: Endpoint, protocol: str, encoding: str, batch: int) -> Payload:
        """Return a pool of request bodies, made once.

        Raises:
            ConfigError: the payload file cannot be read or does not fit, or an encoding that is not there.
            DeploymentError: the server does not describe its model.
        """
        one_of("protocol", protocol, PROTOCOLS)
        key = (protocol, encoding, batch)
        if key not in self._pools:
            target = Target(endpoint.model, self.version, self.signature)
            if isinstance(self.api, FileApi):
                self._pools[key] = self._files_as_they_are(self.api, target, protocol, encoding, batch)
            else:
                self._pools[key] = self._tensors_encoded(self.api, endpoint, target, protocol, encoding, batch)
        return self._pools[key]

    def _tensors_encoded(
        self, api: TensorApi, endpoint: Endpoint, target: Target, protocol: str, encoding: str, batch: int
    ) -> Payload:
        default = next(iter(endpoint.interface.encoders[protocol]))
        one_of("encoding", encoding or default, (default,))
        bodies: list[bytes] = []
        files: Sequence[Path | None] = [None] if self.file is None else self._files()
        for file in files:
            if file is not None and file.suffix == ".json":
                _check_no_batch(batch)
                bodies.append(self._json_request(api, endpoint, target, protocol, file))
            else:
                inputs = self._inputs_of(api, endpoint, target)
                arrays = _generate(inputs, batch) if file is None else _arrays(file, inputs)
                bodies += [api.encode[protocol](target, request) for request in _cut(arrays, inputs, batch)]
        if protocol == "grpc":
            return Payload("grpc", default, api.grpc_path, bodies, _as_bytes)
        return Payload("rest", default, api.rest_path(target), bodies, _as_bytes, {"content-type": JSON})

    def _files_as_they_are(self, api: FileApi, target: Target, protocol: str, encoding: str, batch: int) -> Payload:
        _check_no_batch(batch)
        one_of("encoding", encoding or "file", ("file",))
        files = self._files()
        bodies = [file.read_bytes() for file in files]
        if protocol == "grpc":
            messages = [api.message(target, body) for body in bodies]
            return Payload("grpc", "file", api.grpc_path, messages, _as_bytes)
        types = {_content_type(file) for file in files}
        if len(types) > 1:
            names = ", ".join(sorted(types))
            raise ConfigError(f"payload={str(self.file)!r} holds {names}; accepted: files of one kind")
        return Payload("rest", "file", api.rest_path(target), bodies, _as_bytes, {"content-type": types.pop()})

    def _files(self) -> list[Path]:
        assert self.file is not None
        files = sorted(self.file.iterdir()) if self.file.is_dir() else [self.file]
        if not files:
            raise ConfigError(f"payload={str(self.file)!r} is an empty folder; accepted: a file, or a folder of files")
        return files

    def _inputs_of(self, api: TensorApi, endpoint: Endpoint, target: Target) -> dict[str, Input]:
        if target.signature not in self._inputs:
            self._inputs[target.signature] = read_inputs(api, endpoint, target)
        return self._inputs[target.signature]

    def _json_request(self, api: TensorApi, endpoint: Endpoint, target: Target, protocol: str, file: Path) -> bytes:
        """Return a REST body as it stands, or the message that carries the same over gRPC."""
        body, signature = file.read_bytes(), ""
        if protocol == "rest" and not self.signature:
            return body
        document = _json(file, body)
        try:
            if api.signature_of is not None:
                signature = api.signature_of(document)
            if protocol == "grpc":
                read = api.signature_of is not None  # Triton's requests name the types themselves
                inputs = self._inputs_of(api, endpoint, replace(target, signature=signature)) if read else {}
                body = api.message_of(target, document, inputs)
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fault = f"payload={str(file)!r}: not a request of {self.title} ({error})"
            raise ConfigError(f"{fault}; accepted: {api.json_form}") from error
        if self.signature not in ("", signature):
            fault = f"signature={self.signature!r}: {str(file)!r} is sent as it stands and runs {signature!r}"
            raise ConfigError(f"{fault}; accepted: {signature!r}, or none")
        return body


def read_inputs(api: TensorApi, endpoint: Endpoint, target: Target) -> dict[str, Input]:
    """Return the model's inputs by name, as the server describes them; none if the signature is unknown.

    Raises:
        AnsweredError: the server's own error, such as for a version that does not exist.
        DeploymentError: it does not answer, or with something else than a description.
        ConfigError: an input has a type that no request can carry.
    """
    read = api.inputs[endpoint.protocols()[0]]
    try:
        return dict(sorted(read(endpoint, target).items()))
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DeploymentError(f"{endpoint.label} did not answer with a model's metadata ({reason})") from error


def _check_no_batch(batch: int) -> None:
    if batch != 1:
        fault = "this payload file is one complete request, so its batch size cannot be changed"
        raise ConfigError(f"batch={batch}: {fault}; leave batch at 1")


def _content_type(file: Path) -> str:
    return _CONTENT_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or OCTETS


def _as_bytes(body: bytes) -> Any:
    """Return an answer as an array of its bytes: what they mean is for the model's user to say."""
    return np.frombuffer(body, np.uint8)


def _json(file: Path, body: bytes) -> Any:
    try:
        return json.loads(body, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"payload={str(file)!r} is no JSON: {error}") from error


def _finite(text: str) -> float:
    """Return a number, which no server takes if it is too large: Python would read infinity."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is beyond the range of numbers")
    return number


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
    """Cut arrays of rows into requests of ``batch`` rows; an input without a batch axis gets one row as it is."""
    rows = min((len(array) for array in arrays.values()), default=1)
    alone = {name for name, array in arrays.items() if name in inputs and _takes_one_row(inputs[name], array)}
    most = 1 if alone else rows
    if not 1 <= batch <= most:
        raise ConfigError(f"batch={batch} cannot be made of {rows} rows for this model; accepted: 1 to {most}")
    starts = range(0, rows - batch + 1, batch)
    return [
        {name: np.asarray(array[i] if name in alone else array[i : i + batch]) for name, array in arrays.items()}
        for i in starts
    ]


def _takes_one_row(one: Input, rows: Tensor) -> bool:
    """Return whether an input takes rows of an array without a batch axis."""
    return one.shape is not None and len(one.shape) == rows.ndim - 1


def _generate(inputs: dict[str, Input], batch: int) -> Tensors:
    """Return random rows for every input, by a fixed seed: uniform in [0, 1), whole numbers below 10, short texts."""
    shapes = {name: _row_shape(name, one) for name, one in inputs.items()}
    row_bytes = sum(8 * math.prod(shape) for shape in shapes.values())
    rows = max(batch, min(POOL, _POOL_BYTES // max(row_bytes, 1)))
    rng = np.random.default_rng(1)
    return {name: _values(rng, inputs[name].dtype, (rows, *shape)) for name, shape in shapes.items()}


def _row_shape(name: str, one: Input) -> tuple[int, ...]:
    if one.shape is not None:
        row = one.shape[1:] if _has_batch(one.shape) else one.shape
        if -1 not in row:
            return row
    shape = "any" if one.shape is None else list(one.shape)
    raise ConfigError(f"the input {name!r} takes the shape {shape}, so inputs cannot be made up; give a payload file")


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Tensor:
    if dtype == "object":
        return np.char.add("text-", rng.integers(0, 10**6, shape).astype(str))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 10, shape).astype(dtype)
