"""The Envoy configuration: pyvoy's own, with two listeners and without what costs per request."""

import json
from collections.abc import Mapping
from typing import Any

from pyvoy import PyvoyServer

APP = "infscale.tfserving.app:app"
# Bodies are read whole, so a request must fit the buffer: 64 MB messages and their JSON, with room to spare.
BUFFER_BYTES = 1 << 30
_WINDOW_BYTES = 1 << 24


def config(address: str, port: int, rest_port: int) -> dict[str, Any]:
    """Return the configuration for gRPC on one port and, unless it is 0, REST on another."""
    server = PyvoyServer(APP, address=address, port=port, lifespan=True)
    full: dict[str, Any] = server.get_envoy_config()
    del full["admin"]  # nobody asks, and it is one more port
    (listener,) = full["static_resources"]["listeners"]
    # One listener with two addresses is one application with one event loop; two listeners would be two of each.
    if rest_port:
        listener["additional_addresses"] = [{"address": _socket(address, rest_port)}]
    # With SO_REUSEPORT a second server would silently share the port.
    listener["enable_reuse_port"] = False
    listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
    (connection_manager,) = listener["filter_chains"][0]["filters"]
    connection_manager["typed_config"].update(_http())
    return full


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _http() -> Mapping[str, Any]:
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
            "max_concurrent_streams": 1024,
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
