"""The real server's flags, in its forms ``--flag=value`` and ``--flag value``, and which of them work here."""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from typing import NoReturn

from infscale.errors import ConfigError

ENVIRONMENT_KEY = "INFSCALE_TFSERVING"
"""Name of the environment variable in which the settings pass into Envoy's process, as JSON."""
_MAX_STREAMS = "grpc.max_concurrent_streams"

# Flags of the real server that are not supported yet, with its defaults: another value is refused, never ignored.
_NOT_YET = {
    "enable_model_warmup": "true",
    "flush_filesystem_caches": "true",
    "grpc_max_threads": "",
    "max_num_load_retries": "5",
    "num_load_threads": "0",
    "num_unload_threads": "0",
    "per_process_gpu_memory_fraction": "0",
    "platform_config_file": "",
    "rest_api_num_threads": "",
    "saved_model_tags": "serve",
    "ssl_config_file": "",
    "tensorflow_inter_op_parallelism": "0",
    "tensorflow_intra_op_parallelism": "0",
    "tensorflow_session_parallelism": "0",
}


@dataclass(frozen=True)
class Settings:
    """A server's settings; every field is a flag of the same name."""

    port: int
    grpc_socket_path: str
    rest_api_port: int
    rest_api_timeout_in_ms: int
    model_name: str
    model_base_path: str
    file_system_poll_wait_seconds: int
    model_config_file: str
    model_config_file_poll_wait_seconds: int
    allow_version_labels_for_unavailable_models: bool
    enable_batching: bool
    batching_parameters_file: str
    monitoring_config_file: str
    grpc_channel_arguments: str
    address: str
    concurrency: int

    def to_json(self) -> str:
        """Return one line from which :func:`from_json` makes equal settings."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Settings:
    """Return the settings of a line that ``to_json`` wrote."""
    return Settings(**json.loads(text))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(argv: list[str]) -> Settings:
    """Return the settings of a command line.

    Raises:
        ConfigError: for an unknown flag, a bad value, or a flag that is not supported yet.
    """
    values = vars(_parser().parse_args(argv))
    for name, default in _NOT_YET.items():
        if values.pop(name).lower() != default:
            raise ConfigError(f"--{name} is not supported yet")
    settings = Settings(**values)
    if settings.port == 0:
        raise ConfigError("--port 0 (no gRPC) is not supported yet")
    if settings.rest_api_port == settings.port:
        raise ConfigError("--rest_api_port cannot be same as --port")
    channel_arguments(settings)
    return settings


def channel_arguments(settings: Settings) -> dict[str, str]:
    """Return ``--grpc_channel_arguments`` by key.

    Raises:
        ConfigError: one is not ``key=value``.
    """
    pairs = [part.partition("=") for part in settings.grpc_channel_arguments.split(",") if part]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise ConfigError(f"--grpc_channel_arguments: {key!r} is not key=value")
    return {key: value for key, _, value in pairs}


def max_streams(settings: Settings) -> int:
    """Return the most streams of a connection; print that other gRPC arguments mean nothing to Envoy.

    Raises:
        ConfigError: it is not a number of streams.
    """
    arguments = channel_arguments(settings)
    text = arguments.pop(_MAX_STREAMS, "1024")
    for key in arguments:
        print(f"--grpc_channel_arguments: {key} has no effect", file=sys.stderr, flush=True)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ConfigError(f"--grpc_channel_arguments: {_MAX_STREAMS}={text!r} is not a number of streams")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="infscale-tfserving", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--port", type=_port, default=8500, help="port of gRPC (default: %(default)s)")
    add("--grpc_socket_path", default="", help="Unix socket that gRPC listens on too")
    add("--rest_api_port", type=_port, default=0, help="port of REST; 0: no REST (default)")
    add("--rest_api_timeout_in_ms", type=int, default=30000, help="(default: %(default)s)")
    add("--model_name", default="default", help="(default: %(default)s)")
    add("--model_base_path", default="", help="folder of the version folders")
    add("--file_system_poll_wait_seconds", type=int, default=1, help="0 or less: look once (default: %(default)s)")
    add("--model_config_file", default="", help="ModelServerConfig as text; instead of name and base path")
    add("--model_config_file_poll_wait_seconds", type=int, default=0, help="0 or less: read it once (default)")
    _add_switch(parser, "allow_version_labels_for_unavailable_models", "accept new labels of versions not served yet")
    _add_switch(parser, "enable_batching", "run requests that come together as one")
    add("--batching_parameters_file", default="", help="BatchingParameters as text")
    add("--monitoring_config_file", default="", help="MonitoringConfig as text: a Prometheus page on the REST port")
    add("--grpc_channel_arguments", default="", help="key=value,…; grpc.max_concurrent_streams has an effect")
    ours = parser.add_argument_group("ours, unknown to the real server")
    ours.add_argument("--address", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    ours.add_argument("--concurrency", type=int, default=1, help="Envoy's threads (default: %(default)s)")
    for name, default in _NOT_YET.items():
        add(f"--{name}", default=default, nargs="?", const="true", help="not supported yet")
    return parser


def _add_switch(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    parser.add_argument(f"--{name}", type=_switch, default=False, nargs="?", const=True, help=f"{text} (default: no)")


def _switch(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return known[text.lower()]


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
