"""A stand-in for Docker: an engine inside the test's process, and a client program that speaks to it.

The engine knows just the commands that the launcher uses, and is as strict as the real one where that matters: a
container is no child of its client and outlives it, a port that is taken fails the run, only what is mounted is seen
inside, and a name stays taken until the container is removed. What runs as ``tensorflow_model_server`` in
a container is this project's embedded server.
"""

import contextlib
import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CLIENT = """#!{python} -S
import json, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect({address!r})
    s.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    for line in s.makefile():
        message = json.loads(line)
        if "code" in message:
            sys.exit(message["code"])
        print(message["text"], flush=True, file=sys.stderr if message["error"] else sys.stdout)
sys.exit(1)
"""
OPTIONS = {"--name", "-p", "-v", "--entrypoint", "--cpuset-cpus"}


@dataclass
class Container:
    """What ``docker run`` was told, and the process that runs."""

    name: str
    image: str
    options: list[tuple[str, str]]
    flags: list[str]
    process: "subprocess.Popen[str]"

    def all(self, option: str) -> list[str]:
        return [value for name, value in self.options if name == option]


@dataclass
class Docker:
    """The engine's state: containers by name, every command, whether the image is here."""

    socket: Path
    has_image: bool = True
    calls: list[list[str]] = field(default_factory=list)
    containers: dict[str, Container] = field(default_factory=dict)
    started: list[Container] = field(default_factory=list)

    def answer(self, arguments: list[str], say: Any) -> int:
        self.calls.append(arguments)
        match arguments:
            case ["version", *_]:
                say("27.0-stand-in")
            case ["image", "inspect", *_]:
                if not self.has_image:
                    return self._fail(say, "Error: No such image: tensorflow/serving", 1)
                say("sha256:0123456789abcdef0123456789abcdef")
            case ["pull", image]:
                if image != "tensorflow/serving":
                    return self._fail(say, f"Error: pull access denied for {image}", 1)
                self.has_image = True
            case ["inspect", "--format", "{{.State.Running}} {{.State.Pid}}", name]:
                if name not in self.containers:
                    return self._fail(say, f"Error: No such object: {name}", 1)
                process = self.containers[name].process
                say(f"{'true' if process.poll() is None else 'false'} {process.pid}")
            case ["stats", "--no-stream", "--format", "json", name]:
                if name not in self.containers:
                    return self._fail(say, f"Error: No such container: {name}", 1)
                say(_stats(self.containers[name]))
            case ["rm", "-f", name]:
                return self._remove(name, say)
            case ["run", *rest]:
                return self._run(rest, say)
            case _:
                return self._fail(say, f"unknown command: {arguments}", 125)
        return 0

    def _fail(self, say: Any, text: str, code: int) -> int:
        say(text, error=True)
        return code

    def _remove(self, name: str, say: Any) -> int:
        container = self.containers.pop(name, None)
        if container is None:
            return self._fail(say, f"Error: No such container: {name}", 1)
        container.process.kill()
        container.process.wait()
        return 0

    def _run(self, arguments: list[str], say: Any) -> int:
        options, remove = [], False
        while arguments[0].startswith("-"):
            option = arguments.pop(0)
            if option == "--rm":
                remove = True
            elif option in OPTIONS:
                options.append((option, arguments.pop(0)))
            else:
                return self._fail(say, f"unknown flag: {option}", 125)
        image, flags, told = arguments[0], arguments[1:], dict(options)
        name = told["--name"]
        if name in self.containers:
            return self._fail(say, f'Conflict. The container name "/{name}" is already in use', 125)
        published = [value.split(":") for option, value in options if option == "-p"]
        if taken := [port for host, port, _ in published if not _free(host, int(port))]:
            return self._fail(say, f"Bind for 127.0.0.1:{taken[0]} failed: port is already allocated", 125)
        assert told["--entrypoint"] == "tensorflow_model_server"
        inside = [_translate(flag, published, told["-v"]) for flag in flags]
        command = [sys.executable, "-m", "infscale.servers.embedded", *inside]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        container = Container(name, image, options, flags, process)
        self.containers[name] = container
        self.started.append(container)
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                say(line.rstrip("\n"))
        code = process.wait()
        if remove:
            self.containers.pop(name, None)
        return code


def _stats(container: Container) -> str:
    """The server's memory and processes; CPU and network as a container shows them that does nothing."""
    process = psutil.Process(container.process.pid)
    told = {"CPUPerc": "0.00%", "MemUsage": f"{process.memory_info().rss / 2**20:.1f}MiB / 7.6GiB"}
    return json.dumps({"Name": container.name, **told, "NetIO": "1.2kB / 0B", "PIDs": str(process.num_threads())})


def _free(host: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def _translate(flag: str, published: list[list[str]], mount: str) -> str:
    """A flag as it must be outside: container ports → host ports, paths in the mount → host paths."""
    name, _, value = flag.partition("=")
    if name in ("--port", "--rest_api_port"):
        hosts = {inside: host for _, host, inside in published}
        return f"{name}={hosts[value]}"
    if name == "--model_base_path":
        host, inside, mode = mount.split(":")
        assert Path(host).is_absolute()
        assert mode == "ro"
        assert value.startswith(inside)
        return f"{name}={host}{value.removeprefix(inside)}"
    return flag


@contextlib.contextmanager
def docker(folder: Path) -> Iterator[Docker]:
    """An engine that answers; ``folder`` gets the client program ``docker``, to be put on PATH."""
    engine = Docker(folder / "s")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            def send(message: dict[str, Any]) -> None:
                with contextlib.suppress(OSError):  # the client was killed: its container goes on
                    self.wfile.write(json.dumps(message).encode() + b"\n")

            arguments = json.loads(self.rfile.readline())
            send({"code": engine.answer(arguments, lambda text, error=False: send({"text": text, "error": error}))})

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    client = folder / "docker"
    client.write_text(CLIENT.format(python=sys.executable, address=str(engine.socket)))
    client.chmod(0o755)
    with Server(str(engine.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            for container in engine.started:
                container.process.kill()
                container.process.wait()
