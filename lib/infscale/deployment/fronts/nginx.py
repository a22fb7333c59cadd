"""nginx as a balancer: its program and its configuration."""

import getpass
import grp
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from infscale.errors import MissingError
from infscale.programs import find_program


def program() -> str:
    """Return the path of nginx, also outside PATH where Debian puts it.

    Raises:
        MissingError: it is not installed.
    """
    path = find_program("nginx")
    if path is None:
        raise MissingError("nginx is not installed: apt-get install nginx (Debian, Ubuntu), dnf install nginx (Fedora)")
    return path


def command(path: str, file: Path) -> list[str]:
    """Return the command line that runs nginx with the configuration in ``file``."""
    return [path, "-e", "stderr", "-p", str(file.parent), "-c", str(file)]


def configuration(ports: Mapping[str, int], upstreams: Mapping[str, Sequence[str]], folder: Path) -> str:
    """Return a configuration: requests go round, over kept connections; its files in ``folder``.

    ``ports`` and ``upstreams`` (``host:port`` of the replicas) are by protocol. Towards a gRPC replica nginx sends one
    request at a time on a connection, and opens as many as it takes.
    """
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    lines = [
        "daemon off;",
        # As root nginx would serve as nobody, who cannot write into the folder.
        *([f"user {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name};"] if os.getuid() == 0 else []),
        f"worker_processes 1; error_log stderr error; pid {folder}/nginx.pid;",
        "worker_rlimit_nofile 16384; events { worker_connections 8192; }",
        "http {",
        "access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 1h;",
        "client_body_buffer_size 1m;",  # larger bodies go through a file
        "http2_max_concurrent_streams 100000; http2_recv_buffer_size 1m; large_client_header_buffers 8 64k;",
        *(f"{name}_temp_path {folder}/{name};" for name in temporary),
        *(_upstream(name, upstreams[name]) for name in ports),
        *(f"server {{ listen 127.0.0.1:{port}{_SERVER[name]} }} }}" for name, port in ports.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


_REST = (
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; '
    "proxy_next_upstream off; proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_connect_timeout 2s;"
)

_GRPC = "grpc_next_upstream off; grpc_read_timeout 1h; grpc_send_timeout 1h; grpc_connect_timeout 2s;"

_SERVER = {
    "rest": f"; location / {{ proxy_pass http://rest; {_REST}",
    "grpc": f" http2; location / {{ grpc_pass grpc://grpc; {_GRPC}",
}
"""How the server of each protocol goes on behind its port."""


def _upstream(name: str, replicas: Sequence[str]) -> str:
    servers = " ".join(f"server {replica} max_fails=0;" for replica in replicas)
    return f"upstream {name} {{ {servers} keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}"
