"""nginx as a balancer: its program and its configuration."""

import getpass
import grp
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from infscale.deployment.processes.ports import find_program
from infscale.errors import MissingError


def nginx() -> str:
    """Path of nginx, also outside PATH where Debian puts it.

    Raises:
        MissingError: it is not installed.
    """
    found = find_program("nginx")
    if found is None:
        raise MissingError("nginx is not installed: apt-get install nginx (Debian, Ubuntu), dnf install nginx (Fedora)")
    return found


def nginx_command(program: str, file: Path) -> list[str]:
    """The command line of nginx."""
    return [program, "-e", "stderr", "-p", str(file.parent), "-c", str(file)]


def nginx_config(listen: Mapping[str, int], upstreams: Mapping[str, Sequence[str]], folder: Path) -> str:
    """nginx' configuration: round robin over requests, kept connections to the replicas; its files in ``folder``.

    Towards a gRPC replica nginx sends one request at a time on a connection, and opens as many as it takes.
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
        *(_nginx_upstream(name, upstreams[name]) for name in listen),
        f"server {{ listen 127.0.0.1:{listen['rest']}; location / {{ proxy_pass http://rest; {_NGINX_REST} }} }}",
        f"server {{ listen 127.0.0.1:{listen['grpc']} http2; location / {{ grpc_pass grpc://grpc; {_NGINX_GRPC} }} }}",
        "}",
    ]
    return "\n".join(lines) + "\n"


_NGINX_REST = (
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; '
    "proxy_next_upstream off; proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_connect_timeout 2s;"
)

_NGINX_GRPC = "grpc_next_upstream off; grpc_read_timeout 1h; grpc_send_timeout 1h; grpc_connect_timeout 2s;"


def _nginx_upstream(name: str, replicas: Sequence[str]) -> str:
    servers = " ".join(f"server {replica} max_fails=0;" for replica in replicas)
    return f"upstream {name} {{ {servers} keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}"
