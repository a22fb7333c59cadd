"""The configuration files (models, batching, monitoring) in text-format protobuf, and the rules that they obey.

This imports no TensorFlow, so that a bad file ends the process at once.
"""

import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from infscale.errors import ConfigError
from infscale.payloads import messages
from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.flags import Settings

METRICS_PATH = "/monitoring/prometheus/metrics"
"""Path of the Prometheus page, unless the monitoring file names another."""
PLATFORM = "tensorflow"
"""The one model platform that is served."""
DEFAULT_POOL = "model_server_batch_threads"
"""Label of the batching metrics, unless the batching file names another."""

# tensorflow-serving-api ships no stubs for these two.
_MESSAGES = messages.build(
    "tensorflow.serving",
    {
        "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
        "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
        "Int64Value": {"value": (1, "int64")},
        "StringValue": {"value": (1, "string")},
        "BatchingParameters": {
            "max_batch_size": (1, "Int64Value"),
            "batch_timeout_micros": (2, "Int64Value"),
            "max_enqueued_batches": (3, "Int64Value"),
            "num_batch_threads": (4, "Int64Value"),
            "thread_pool_name": (5, "StringValue"),
            "allowed_batch_sizes": (6, "repeated int64"),
            "pad_variable_length_inputs": (7, "bool"),
        },
    },
)


def read_text(path: str, message: Any) -> Any:
    """Return ``message`` filled from a file of text-format protobuf.

    Raises:
        StatusError: NOT_FOUND or INVALID_ARGUMENT, with the file's name; the place of the error goes to standard
            error.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StatusError(Code.NOT_FOUND, f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        name = message.DESCRIPTOR.full_name
        print(f"Error parsing text-format {name}: {error}", file=sys.stderr, flush=True)
        raise invalid(f"Invalid protobuf file: '{path}'") from None


def models_of(settings: Settings) -> model_server_config_pb2.ModelServerConfig:
    """Return what to serve: the configuration file's models, or the one that the flags name.

    Raises:
        StatusError: the file cannot be read, or :func:`check` refuses it.
    """
    config = model_server_config_pb2.ModelServerConfig()
    if settings.model_config_file:
        read_text(settings.model_config_file, config)
    else:
        base = os.path.abspath(settings.model_base_path)
        config.model_config_list.config.add(name=settings.model_name, base_path=base, model_platform=PLATFORM)
    check(config)
    return config


def check(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Check a configuration by the rules of the real server.

    Raises:
        StatusError: FAILED_PRECONDITION for a custom configuration, INVALID_ARGUMENT for a repeated name, a relative
            path, or a platform other than TensorFlow.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise StatusError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
            "another.",
        )
    names: set[str] = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in config.model_config_list.config:
        if not model.base_path.startswith("/"):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        _check_platform(model)


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    both = model.model_type and model.model_platform
    if both or not (model.model_type or model.model_platform):
        how, conjunction = ("both", "and") if both else ("neither", "nor")
        raise invalid(
            f"Illegal setting {how} ModelServerConfig::model_type (deprecated) {conjunction} "
            "ModelServerConfig::model_platform."
        )
    if model.model_type not in (0, model_server_config_pb2.TENSORFLOW):
        raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    if model.model_platform not in ("", PLATFORM):
        raise invalid(f"Model {model.name} requests unsupported platform {model.model_platform}")


def metrics_path(settings: Settings) -> str:
    """Return the path of the Prometheus page, empty if there is none.

    Raises:
        StatusError: the file cannot be read.
    """
    if not settings.monitoring_config_file:
        return ""
    monitoring = read_text(settings.monitoring_config_file, _MESSAGES["MonitoringConfig"]()).prometheus_config
    return (monitoring.path or METRICS_PATH) if monitoring.enable else ""


@dataclass(frozen=True)
class Batching:
    """Parameters of batching; the defaults are the real server's.

    Attributes:
        max_batch_size: most rows of a batch; a larger request is refused.
        batch_timeout_micros: longest wait of a batch's first request while a thread is free.
        max_enqueued_batches: most batches that wait for a signature, with the open one; more requests are refused.
        num_batch_threads: most batches that run at a time.
        thread_pool_name: a label of the metrics.
        allowed_batch_sizes: ascending; a batch is filled up with copies of a row to the next of them.
        pad_variable_length_inputs: whether rows of different shapes share a batch, the smaller ones padded.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    thread_pool_name: str = DEFAULT_POOL
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False


_WRAPPED = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name")


def batching(settings: Settings) -> Batching | None:
    """Return the batching parameters, or None if batching is off.

    Raises:
        ConfigError: a value that cannot work.
        StatusError: the file cannot be read, or was given without ``--enable_batching``.
    """
    if not settings.batching_parameters_file:
        return Batching() if settings.enable_batching else None
    if not settings.enable_batching:
        raise invalid(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    message = read_text(settings.batching_parameters_file, _MESSAGES["BatchingParameters"]())
    values = {name: getattr(message, name).value for name in _WRAPPED if message.HasField(name)}
    values.setdefault("thread_pool_name", "batch_threads")
    parameters = Batching(
        **values,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )
    _check_batching(parameters)
    return parameters


def _check_batching(parameters: Batching) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        if getattr(parameters, name) < 1:
            raise ConfigError(f"{name} must be positive; was {getattr(parameters, name)}")
    if parameters.batch_timeout_micros < 0:
        raise ConfigError(f"batch_timeout_micros must be non-negative; was {parameters.batch_timeout_micros}")
    sizes = parameters.allowed_batch_sizes
    if sizes and sizes[-1] != parameters.max_batch_size:
        raise invalid(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; expected "
            f"{parameters.max_batch_size}"
        )
    if sizes and (sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes))):
        raise ConfigError(f"allowed_batch_sizes must be positive and ascending; was {list(sizes)}")
