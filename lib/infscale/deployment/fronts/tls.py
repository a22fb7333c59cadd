"""TLS in front of a server: Envoy decrypts, and passes the bytes on as they are.

It terminates TLS and nothing else (Envoy's ``tcp_proxy``): HTTP/1.1 and HTTP/2 frames reach the server untouched, over
one connection for each of the client's. What TLS costs here is therefore the encryption and a hop, not an HTTP proxy.
The certificates are made at each start, for the server's address alone.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from infscale.deployment.endpoint import Endpoint, answers
from infscale.deployment.fronts import envoy
from infscale.deployment.processes.folder import working_folder
from infscale.deployment.processes.ports import HERE, Place, choose_ports
from infscale.deployment.processes.process import Process, serving
from infscale.errors import MissingError

START_TIMEOUT_S = 20.0
"""Longest time that the terminator may take to start, seconds."""
ALPN = {"rest": "http/1.1", "grpc": "h2"}
"""Application protocol that each port offers by ALPN."""


@contextlib.contextmanager
def terminate(
    endpoint: Endpoint,
    *,
    place: Place = HERE,
    rest_port: int = 0,
    grpc_port: int = 0,
    log_folder: Path | None = None,
    pid_log: Path | None = None,
) -> Iterator[Endpoint]:
    """Put TLS in front of ``endpoint``, over each of its protocols, and yield the encrypted one. Ports of 0 are chosen.

    Raises:
        MissingError: Envoy, or the package that makes certificates, is not installed.
        ConfigError: a taken port.
        DeploymentError: it did not become ready; the message has the end of its log.
    """
    program = envoy.program()
    ports = choose_ports({"rest_port": rest_port, "grpc_port": grpc_port}, place)
    with working_folder("tls") as run:
        _certify(place.host, run)
        doors = [
            envoy.Door(
                protocol,
                port,
                [endpoint.address(protocol)],
                host=place.host,
                tls=envoy.Tls(run / "server.pem", run / "key.pem", ALPN[protocol]),
            )
            for protocol, port in zip(ALPN, ports, strict=True)
            if protocol in endpoint.protocols()
        ]

        def encrypted(process: Process) -> Endpoint:
            return _encrypted(endpoint, doors, run / "ca.pem", process)

        with serving(
            envoy.command(program, envoy.configuration(doors)),
            what="the TLS terminator",
            log=(log_folder or run) / "terminator.log",
            ports=[door.port for door in doors],
            ready=lambda process: answers(encrypted(process)),
            timeout_s=START_TIMEOUT_S,
            remove=[run],
            pid_log=pid_log,
            place=place,
        ) as process:
            yield encrypted(process)


def _certify(host: str, run: Path) -> None:
    """Write ``ca.pem``, and ``server.pem`` with its ``key.pem``, for ``host`` as their only name."""
    try:
        import trustme
    except ImportError as error:
        raise MissingError("TLS needs trustme: pip install trustme (or pip install 'infscale[servers]')") from error
    authority = trustme.CA()
    leaf = authority.issue_cert(host)
    authority.cert_pem.write_to_path(str(run / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(run / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(run / "server.pem"))


def _encrypted(endpoint: Endpoint, doors: list[envoy.Door], ca: Path, process: Process) -> Endpoint:
    def processes() -> list[psutil.Process]:
        """List both; none once the server has ended, since the terminator alone serves nothing."""
        server = endpoint.processes()
        return server and [*server, *process.tree()]

    address = {door.name: f"{door.host}:{door.port}" for door in doors}
    return replace(
        endpoint,
        rest=address.get("rest", ""),
        grpc=address.get("grpc", ""),
        tls=tuple(address),
        ca=str(ca),
        processes=processes,
        parts={**(endpoint.parts or {"server": endpoint.processes}), "terminator": process.tree},
    )
