"""The Envoy configuration: pyvoy's own, with more addresses and without what costs per request."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyvoy import PyvoyServer

from infscale.errors import ConfigError
from infscale.servers.embedded.flags import Settings, channel_arguments

APP = "infscale.servers.embedded.app:app"
# Bodies are read whole, so a request must fit the buffer: 64 MB messages and their JSON, with room to spare.
BUFFER_BYTES = 1 << 30
_WINDOW_BYTES = 1 << 24
_MAX_STREAMS = "grpc.max_concurrent_streams"


def config(settings: Settings) -> dict[str, Any]:
    """Return the configuration for gRPC on one port and, as asked for, REST on another and gRPC on a Unix socket."""
    more = [_socket(settings.address, settings.rest_api_port)] if settings.rest_api_port else []
    if settings.grpc_socket_path:
        more.append({"pipe": {"path": os.path.abspath(settings.grpc_socket_path)}})
    return listening(APP, settings.address, settings.port, more, _streams(settings))


def listening(
    app: str, address: str, port: int, more: Sequence[Mapping[str, Any]] = (), streams: int = 1024
) -> dict[str, Any]:
    """Return the configuration for an ASGI application (``module:name``) on a port, and on ``more`` addresses."""
    server = PyvoyServer(app, address=address, port=port, lifespan=True)
    full: dict[str, Any] = server.get_envoy_config()
    del full["admin"]  # nobody asks, and it is one more port
    (listener,) = full["static_resources"]["listeners"]
    # One listener with several addresses is one application with one event loop; two listeners would be two of each.
    listener["additional_addresses"] = [{"address": one} for one in more]
    # With SO_REUSEPORT a second server would silently share the port.
    listener["enable_reuse_port"] = False
    listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
    (connection_manager,) = listener["filter_chains"][0]["filters"]
    connection_manager["typed_config"].update(_http(streams))
    return full


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _streams(settings: Settings) -> int:
    """Return the most streams of a connection; other gRPC arguments mean nothing to Envoy, which is said."""
    arguments = channel_arguments(settings)
    text = arguments.pop(_MAX_STREAMS, "1024")
    for key in arguments:
        print(f"--grpc_channel_arguments: {key} has no effect", file=sys.stderr, flush=True)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ConfigError(f"--grpc_channel_arguments: {_MAX_STREAMS}={text!r} is not a number of streams")
    return int(text)


def _http(streams: int) -> Mapping[str, Any]:
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
            "max_concurrent_streams": streams,
            "initial_stream_window_size": _WINDOW_BYTES,
            "initial_connection_window_size": _WINDOW_BYTES,
        },
        "internal_address_config": {"unix_sockets": False},
    }


def arguments(envoy: str, full: Mapping[str, Any], concurrency: int) -> list[str]:
    """Return the command line of the process that the server becomes."""
    return [
        envoy,
        "--config-yaml",
        json.dumps(full),
        "--disable-hot-restart",
        "--log-level",
        "error",
        "--concurrency",
        str(concurrency),
    ]
