#!/usr/bin/env python3
"""Check what a release would bring: build the wheel, install it alone, and use it outside a checkout.

The wheel goes into an empty environment, with the versions of requirements.txt but without the extras, into a folder
that is no checkout. There `infscale` loads a small HTTP server, compares it with itself, and draws the committed
sample.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""A program that answers every request on a port of loopback."""


def main() -> None:
    """Run the check; a step that fails ends it with that step's output."""
    with tempfile.TemporaryDirectory(prefix="infscale-release-") as name:
        folder = Path(name)
        wheel, environment, outside = folder / "dist", folder / "environment", folder / "outside"
        outside.mkdir()
        pip = str(environment / "bin" / "pip")
        infscale = str(environment / "bin" / "infscale")
        run(outside, sys.executable, "-m", "venv", str(environment))
        run(outside, pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheel), str(ROOT))
        built = next(wheel.glob("*.whl"))
        versions = str(ROOT / "requirements.txt")
        run(outside, pip, "install", "--quiet", "--no-compile", "--constraint", versions, str(built))
        print(run(outside, infscale, "--version").strip(), "from", built.name)
        with http_server(outside, str(environment / "bin" / "python")) as url:
            loaded = run(outside, infscale, "load", url, "--rate", "50", "--duration", "3", codes=(0, 3))
            assert "succeeded" in loaded, loaded
            compared = run(outside, infscale, "compare", url, url, "--budget", "60s", codes=(0, 1, 3))
            assert "λ*" in compared, compared
        run(outside, infscale, "figures", "--run", str(newest("protocols")), "--figures", "drawn")
        drawn = sorted(path.name for path in (outside / "drawn").iterdir())
        assert {"report.html", "f0-percentiles.pdf", "values.tex"} <= set(drawn), drawn
        print(f"load, compare and figures work from the wheel; {len(drawn)} files drawn")


def run(folder: Path, *command: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command outside the checkout and return what it prints; another exit code ends the check."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONUTF8"] = "1"
    result = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=-1, stderr=-2, timeout=900)
    if result.returncode not in codes:
        sys.exit(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout[-4000:]}")
    return result.stdout


def newest(finding: str) -> Path:
    """Return the folder of the sample's newest run of a finding."""
    manifests = {path: json.loads((path / "run.json").read_text()) for path in SAMPLE.iterdir()}
    return max(path for path, manifest in manifests.items() if manifest["design"]["finding"] == finding)


@contextlib.contextmanager
def http_server(folder: Path, python: str) -> Iterator[str]:
    """Answer requests on a free loopback port while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([python, "-c", SERVER, str(port)], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        await_listening(port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def await_listening(port: int) -> None:
    """Return when a connection to a port of loopback is accepted.

    Raises:
        TimeoutError: none was for 30 s.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
