"""The real server's flags, in its forms ``--flag=value`` and ``--flag value``, and which of them work here."""

import argparse
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from infscale.errors import ConfigError

# The settings cross the exec into Envoy in this environment variable, as JSON.
ENVIRONMENT_KEY = "INFSCALE_TFSERVING"

# Flags of the real server whose behaviour is not there yet: refused, never ignored. A flag set to the real server's
# default asks for nothing and passes.
_NOT_YET = {
    "allow_version_labels_for_unavailable_models": "false",
    "batching_parameters_file": "",
    "enable_batching": "false",
    "enable_model_warmup": "true",
    "flush_filesystem_caches": "true",
    "grpc_channel_arguments": "",
    "grpc_max_threads": "",
    "grpc_socket_path": "",
    "max_num_load_retries": "5",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": "0",
    "monitoring_config_file": "",
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
    """What a server is started with; every field is a flag of the same name."""

    port: int
    rest_api_port: int
    model_name: str
    model_base_path: str
    rest_api_timeout_in_ms: int
    file_system_poll_wait_seconds: int
    address: str
    concurrency: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for the environment of the process that serves."""
        return asdict(self)


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
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="infscale-tfserving", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=_port, default=8500, help="port of gRPC (default: %(default)s)")
    parser.add_argument("--rest_api_port", type=_port, default=0, help="port of REST; 0: no REST (default)")
    parser.add_argument("--model_name", default="default", help="(default: %(default)s)")
    parser.add_argument("--model_base_path", default="", help="folder of the version folders")
    parser.add_argument("--rest_api_timeout_in_ms", type=int, default=30000, help="(default: %(default)s)")
    parser.add_argument(
        "--file_system_poll_wait_seconds", type=int, default=1, help="0 or less: look once (default: %(default)s)"
    )
    ours = parser.add_argument_group("ours, unknown to the real server")
    ours.add_argument("--address", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    ours.add_argument("--concurrency", type=int, default=1, help="Envoy's threads (default: %(default)s)")
    for name, default in _NOT_YET.items():
        parser.add_argument(f"--{name}", default=default, nargs="?", const="true", help="not supported yet")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
