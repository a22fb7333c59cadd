"""``infscale-tfserving``: check flags, files and ports, then become Envoy with the application inside.

Nothing here imports TensorFlow, which takes three seconds: that is done once, in Envoy's process, where a model that
does not load ends the process with the reason on standard error.
"""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from infscale.errors import ConfigError
from infscale.servers.asgi.status import StatusError
from infscale.servers.embedded import config, flags
from infscale.servers.embedded.versions import has_model, versions_at

APP = "infscale.servers.embedded.app:app"
"""The ASGI application, as ``module:name``."""


def main() -> None:
    """Run the server; it returns only after an error, with exit status 1."""
    try:
        _main(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"infscale-tfserving: {error}")


def _main(argv: list[str]) -> None:
    settings = flags.parse(argv)
    try:
        _check_files(settings)
    except StatusError as error:
        sys.exit(f"Failed to start server. Error: {error}")
    _check_ports(settings)
    _become_envoy(settings)


def _check_files(settings: flags.Settings) -> None:
    if not settings.model_config_file:
        _check_base_path(settings.model_base_path)
    config.models_of(settings)
    config.batching(settings)
    config.metrics_path(settings)


def _check_base_path(path: str) -> None:
    if not path:
        raise ConfigError("--model_base_path is required, or --model_config_file")
    base = Path(path)
    if not base.is_dir():
        raise ConfigError(f"--model_base_path {base} is not a directory")
    if not any(has_model(folder) for folder in versions_at(base).values()):
        raise ConfigError(f"no version of a SavedModel (a folder N with saved_model.pb) under {base}")


def _check_ports(settings: flags.Settings) -> None:
    for name, port in (("port", settings.port), ("rest_api_port", settings.rest_api_port)):
        if port == 0:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.address, port))
            except OSError as error:
                raise ConfigError(f"--{name} {port} on {settings.address} cannot be used: {error.strerror}") from None


def _become_envoy(settings: flags.Settings) -> NoReturn:
    from infscale.servers.asgi import envoy

    more = [envoy.tcp_address(settings.address, settings.rest_api_port)] if settings.rest_api_port else []
    if settings.grpc_socket_path:
        more.append(envoy.unix_address(settings.grpc_socket_path))
    config = envoy.configuration(APP, settings.address, settings.port, more, flags.max_streams(settings))
    variables = {**_ENVIRONMENT, **os.environ, flags.ENVIRONMENT_KEY: settings.to_json()}
    envoy.become(config, variables, settings.concurrency)


_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # start-up chatter, and an error for a GPU that is not there
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_USE_LEGACY_KERAS": "1",  # keeps TensorFlow from importing Keras, pandas and Matplotlib: 1.3 s less
}

if __name__ == "__main__":
    main()
