"""If these fail, ``infscale load`` reports numbers that its own rows do not hold, or fails otherwise than it says."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pandas as pd
import pytest

from helpers.waiting import await_true
from infscale import cli
from infscale.deployment.endpoint import Endpoint
from infscale.deployment.processes.ports import free_ports
from infscale.errors import DataError
from infscale.load import trace as load_trace
from infscale.models import reference as models
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID
from infscale.records.manifest import LoadManifest, read
from infscale.vocabulary import PROTOCOLS, SCHEME

COMMAND = (sys.executable, "-m", "infscale.cli", "load")
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


class Shown(NamedTuple):
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def command(*options: object) -> Shown:
    """Run ``infscale load`` within this process, which saves its imports; its engine has a process of its own."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = cli.main(["load", *map(str, options)])
    return Shown(code, out.getvalue(), errors.getvalue())


def measured(folder: Path, url: str, *options: object) -> tuple[dict[str, Any], pd.DataFrame]:
    """The JSON and the rows of a load that was measured, whatever this machine's state made of the verdict."""
    out = folder / "samples.parquet"
    shown = command(url, "--json", "--out", out, *options)
    summary: dict[str, Any] = json.loads(shown.stdout) if shown.stdout else {}
    assert summary, shown.stderr
    assert shown.returncode == (3 if summary["verdict"] == "INVALID" else 0), shown.stderr
    return summary, samples.read(out)


def agree(summary: dict[str, Any], rows: pd.DataFrame) -> None:
    """Whether what was shown is what the rows say, computed anew (of a load without failures and warm-up)."""
    assert summary["requests"] == summary["succeeded"] == len(rows) == (rows["status"] == "ok").sum()
    assert summary["errors"] == {}
    for name, since in {"response_time": "scheduled_ns", "round_trip_time": "sent_ns"}.items():
        times_ms = (rows["done_ns"] - rows[since]).to_numpy() / 1e6
        for label, p in QUANTILES.items():
            key = f"{name}_{label}_ms"
            if len(rows) * (1 - p) < 1 - 1e-9:
                assert summary[key] is None
                assert key in summary["omitted"]
            else:
                assert summary[key] == pytest.approx(np.quantile(times_ms, p, method="inverted_cdf"))
    late_ms = (rows["due_ns"] - rows["scheduled_ns"]).to_numpy() / 1e6
    assert summary["lag_p50_ms"] == pytest.approx(np.quantile(late_ms, 0.5, method="inverted_cdf"))
    assert summary["offered_per_s"] == pytest.approx(len(rows) / summary["duration_s"])
    assert summary["bytes_in"] == rows["bytes_in"].sum()
    assert summary["bytes_out"] == rows["bytes_out"].sum()
    assert summary["cpu_per_request_us"] > 0
    assert summary["connections_opened"] >= rows["connection"].nunique()


# --------------------------------------------------------------------------------- against real servers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_against_serving_systems(endpoint: Endpoint, protocol: str, tmp_path: Path) -> None:
    payload = endpoint.interface.payload(protocol, "mlp", models.inputs("mlp", 3))
    files = [tmp_path / f"body{i}" for i in range(3)]
    for file, body in zip(files, payload.bodies, strict=True):
        file.write_bytes(body)
    headers = [word for k, v in payload.headers.items() for word in ("--header", f"{k}: {v}")]
    url = f"{SCHEME[protocol]}://{endpoint.address(protocol)}{payload.path}"
    summary, rows = measured(tmp_path, url, "--rate", 100, "--duration", 2, "--body", *files, *headers)
    agree(summary, rows)
    assert set(rows["payload"]) == {0, 1, 2}


@contextmanager
def grpc_server(seen: Callable[[bytes], None] = lambda request: None) -> Iterator[tuple[str, str]]:
    """A grpcio server that answers any method with the request's bytes; yields its address and its socket."""

    class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            def answer(request: bytes, _: object) -> bytes:
                seen(request)
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    with tempfile.TemporaryDirectory() as folder:
        server = grpc.server(ThreadPoolExecutor(4), handlers=[Echo()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.add_insecure_port(f"unix:{folder}/s")
        server.start()
        try:
            yield f"127.0.0.1:{port}", f"unix:{folder}/s:"
        finally:
            server.stop(None).wait(60)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_against_grpcio(tmp_path: Path, unix: bool, gzip: bool) -> None:
    (tmp_path / "body").write_bytes(b"message" * 100)
    requests: list[bytes] = []
    with grpc_server(requests.append) as addresses:
        url = f"grpc://{addresses[unix]}/any.Service/Method"
        options = ("--rate", 200, "--duration", 1, "--body", tmp_path / "body", *(("--gzip",) if gzip else ()))
        summary, rows = measured(tmp_path, url, *options)
    agree(summary, rows)
    assert set(requests) == {b"message" * 100}
    assert len(requests) == len(rows)
    assert (rows["bytes_out"] < 700).all() == gzip


NGINX_CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    server {{
        listen 127.0.0.1:{ports[0]}; listen unix:{folder}/sock;
        listen 127.0.0.1:{ports[1]} http2; listen 127.0.0.1:{ports[2]} ssl http2;
        location = /static {{ return 200 "static content"; }}
    }}
}}
"""


def certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that only its own file makes trusted."""
    options = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*options.split(), *extra], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def nginx(server_process: None) -> Iterator[tuple[Path, list[int]]]:
    """nginx with a static location over HTTP/1.1, h2c, TLS and a Unix socket; its folder and three ports."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed (neither on PATH nor in /usr/sbin)")
    ports = free_ports(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder)
        (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, ports=ports))
        process = subprocess.Popen([NGINX, "-p", name, "-c", "nginx.conf", "-e", "error.log"])
        try:
            await_true(lambda: all(map(listening, ports)), alive=lambda: process.poll() is None)
            yield folder, ports
        finally:
            process.terminate()
            process.wait(60)


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("kind", ["http", "http-unix", "h2c", "https", "h2"])
def test_against_nginx(nginx: tuple[Path, list[int]], kind: str, tmp_path: Path) -> None:
    folder, (plain, h2c, tls) = nginx
    addresses = {
        "http": f"http://127.0.0.1:{plain}",
        "http-unix": f"http://unix:{folder}/sock:",
        "h2c": f"h2c://127.0.0.1:{h2c}",
        "https": f"https://127.0.0.1:{tls}",
        "h2": f"h2://127.0.0.1:{tls}",
    }
    (tmp_path / "body").write_bytes(b"x" * 1000)
    trust = ("--ca", folder / "cert.pem") if kind in ("https", "h2") else ()
    options = ("--rate", 300, "--duration", 1, "--body", tmp_path / "body", *trust)
    summary, rows = measured(tmp_path, f"{addresses[kind]}/static", *options)
    agree(summary, rows)
    assert (rows["bytes_in"] > len("static content")).all()


def test_a_certificate_that_is_not_trusted_is_no_success(nginx: tuple[Path, list[int]], tmp_path: Path) -> None:
    """A load that encrypts for anyone would hide a wrong server."""
    url = f"https://127.0.0.1:{nginx[1][2]}/static"
    shown = command(url, "--rate", 50, "--duration", 0.5)
    assert shown.returncode == 4
    assert "certificate" in shown.stderr.lower()
    summary, rows = measured(tmp_path, url, "--rate", 50, "--duration", 0.5, "--insecure")
    agree(summary, rows)
    shown = command(url, "--rate", 50, "--ca", tmp_path / "samples.json")
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr


# ---------------------------------------------------------------------------------------------- options


class Recorder(BaseHTTPRequestHandler):
    """Answers every POST and keeps what came."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        code = 503 if body == b"fail" else 200
        self.wfile.write(f"HTTP/1.1 {code} -\r\ncontent-length: 2\r\n\r\nok".encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


@pytest.fixture
def recorder() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server's URL and what it has got."""
    seen: list[tuple[dict[str, str], bytes]] = []
    with Server(("127.0.0.1", 0), type("Own", (Recorder,), {"seen": seen})) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/path", seen
        server.shutdown()


Recorded = tuple[str, list[tuple[dict[str, str], bytes]]]


def test_headers_and_bodies_arrive_as_given(recorder: Recorded, tmp_path: Path) -> None:
    url, seen = recorder
    (tmp_path / "a").write_bytes(b"A" * 2000)
    (tmp_path / "b").write_bytes(b"\x00\xff")
    headers = ("--header", "X-Probe: a: b", "--header", "Content-Type:application/json")
    options = ("--rate", 100, "--duration", 1, "--body", tmp_path / "a", tmp_path / "b", "--no-keep-alive")
    summary, rows = measured(tmp_path, url, *options, *headers)
    agree(summary, rows)
    assert {body for _, body in seen} == {b"A" * 2000, b"\x00\xff"}
    assert all(h["x-probe"] == "a: b" and h["content-type"] == "application/json" for h, _ in seen)
    assert rows["connection"].nunique() == len(rows) == summary["connections_opened"]


def test_without_a_body_requests_are_empty(recorder: Recorded, tmp_path: Path) -> None:
    url, seen = recorder
    agree(*measured(tmp_path, url, "--rate", 50, "--duration", 0.5))
    assert {body for _, body in seen} == {b""}


def test_failures_count_in_the_percentiles_and_successes_stand_beside_them(recorder: Recorded, tmp_path: Path) -> None:
    """A server that refuses fast must not look fast."""
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "bad").write_bytes(b"fail")
    options = ("--rate", 200, "--duration", 1, "--body", tmp_path / "good", tmp_path / "bad")
    summary, rows = measured(tmp_path, recorder[0], *options)
    ok = rows[rows["status"] == "ok"]
    assert summary["errors"] == {"http_503": len(rows) - len(ok)}
    assert summary["response_time_p95_ms"] is None
    assert "infinite" in summary["bounds"]["response_time_p95_ms"]
    expected = np.quantile((ok["done_ns"] - ok["scheduled_ns"]) / 1e6, 0.5, method="inverted_cdf")
    assert summary["response_time_ok_p50_ms"] == pytest.approx(expected)
    assert summary["verdict"] != "VALID"


def test_the_text_says_the_same(recorder: Recorded) -> None:
    options = ("--rate", "100", "--duration", "1", "--warmup", "0.2")
    shown = subprocess.run([*COMMAND, recorder[0], *options], capture_output=True, text=True, timeout=120)
    assert shown.returncode in (0, 3), shown.stderr
    for word in (
        "response time",
        "round-trip time",
        "lag",
        "wait",
        "offered",
        "achieved",
        "generator CPU",
        "opened",
        "errors",
    ):
        assert word in shown.stdout
    assert "p99.9 needs 1,000" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith((VALID, UNSTEADY, SATURATED, INVALID))


def test_a_seed_repeats_the_load_whatever_the_warm_up_is(recorder: Recorded, tmp_path: Path) -> None:
    url = recorder[0]
    options = ("--rate", "50,300", "--duration", 1, "--arrivals", "ramp", "--seed", 7, "--shards", 2)
    summary, rows = measured(tmp_path, url, *options, "--out", tmp_path / "samples.parquet")
    warm_summary, warm_rows = measured(tmp_path, url, *options, "--warmup", 0.5)
    warm = warm_rows["scheduled_ns"] < 500_000_000
    assert warm_summary["warmup_requests"] == warm.sum() > 5
    assert warm_summary["requests"] == summary["requests"] == len(rows)
    assert (warm_rows["scheduled_ns"][~warm].to_numpy() - 500_000_000 == rows["scheduled_ns"]).all()
    late_ms = (warm_rows["done_ns"] - warm_rows["scheduled_ns"])[~warm] / 1e6
    assert warm_summary["response_time_p50_ms"] == pytest.approx(np.quantile(late_ms, 0.5, method="inverted_cdf"))
    assert set(rows["shard"]) == {0, 1}


def test_a_stored_load_can_be_replayed_as_a_trace(recorder: Recorded, tmp_path: Path) -> None:
    url = recorder[0]
    _, first = measured(tmp_path, url, "--rate", 100, "--duration", 1, "--arrivals", "gamma", "--cv", 2)
    (tmp_path / "samples.parquet").rename(tmp_path / "trace.parquet")
    trace = ("--arrivals", "trace", "--trace", tmp_path / "trace.parquet")
    _, again = measured(tmp_path, url, *trace)
    original = first["scheduled_ns"] - first["scheduled_ns"].min()
    assert (again["scheduled_ns"] == original).all()
    summary, faster = measured(tmp_path, url, *trace, "--rate", 400, "--shards", 2)
    assert len(faster) == len(first)
    assert summary["rate_per_s"] == 400
    assert summary["duration_s"] == pytest.approx(len(first) / 400)


def test_the_manifest_beside_the_rows_shows_how_they_came_about(recorder: Recorded, tmp_path: Path) -> None:
    options = ("--rate", 50, "--duration", 0.5, "--header", "Authorization: secret")
    summary, rows = measured(tmp_path, recorder[0], *options)
    manifest = read(tmp_path / "samples.json", LoadManifest)
    assert manifest.rows == len(rows)
    assert manifest.summary == summary
    assert manifest.header_names == ["authorization"]
    assert "secret" not in (tmp_path / "samples.json").read_text()
    assert manifest.machine is not None
    assert manifest.machine.cores >= 1
    assert manifest.versions["numpy"] == np.__version__


# ----------------------------------------------------------------------------------- what can go wrong


def test_nobody_listening_gives_rows_a_message_and_its_own_code(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    out = tmp_path / "rows.parquet"
    shown = command(f"http://127.0.0.1:{port}/", "--rate", 100, "--duration", 0.5, "--out", out, "--json")
    assert shown.returncode == 4
    assert "succeeded" in shown.stderr
    assert "refused" in shown.stderr
    rows = samples.read(out)
    assert set(rows["status"]) == {"refused"}
    assert json.loads(shown.stdout)["errors"] == {"refused": len(rows)}


def test_a_server_that_never_answers_is_more_than_its_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        shown = command(url, "--rate", 40, "--duration", 0.5, "--timeout", 0.3, "--json")
    summary = json.loads(shown.stdout)
    assert shown.returncode == 4
    assert summary["errors"] == {"timeout": summary["requests"]}
    assert summary["response_time_p50_ms"] == 300
    assert summary["bounds"]["response_time_p50_ms"] == "> 300: a timeout"
    assert summary["response_time_ok_p50_ms"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_rows_so_far(tmp_path: Path, number: signal.Signals) -> None:
    """An hour's load must not be lost with its last minute."""
    served = threading.Semaphore(0)
    out = tmp_path / "rows.parquet"
    options = ("--rate", "100", "--duration", "100", "--json", "--out", str(out))
    with grpc_server(lambda request: served.release()) as (address, _):
        process = subprocess.Popen(
            [*COMMAND, f"grpc://{address}/p.S/M", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            for _ in range(30):  # the first of them have their answers by then
                assert served.acquire(timeout=60)
            process.send_signal(number)
            shown, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    summary, rows = json.loads(shown), samples.read(out)
    assert len(rows) > 9000
    counts = rows["status"].value_counts()
    assert counts["unsent"] > 8000
    assert counts["ok"] >= 1
    assert summary["interrupted"]
    assert summary["succeeded"] == counts["ok"]
    assert summary["requests"] + summary["unsent"] + summary["cut_off"] == len(rows)
    assert summary["duration_s"] < 60


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("body").write_text("x")
    Path("empty").touch()
    Path("other.csv").write_text("when,what\n1,2\n")
    Path("text.csv").write_text("arrival_s\nnoon\n")
    Path("gap.csv").write_text("arrival_s\n1.5\n\ninf\n")
    Path("none.csv").write_text("arrival_s\n")
    Path("cut.parquet").write_bytes(b"PAR1 and no more")
    Path("at_once.csv").write_text("arrival_ns\n5\n5\n")


GOOD = "http://127.0.0.1:1/ --rate 10 --duration 1"
TRACE = "http://127.0.0.1:1/ --arrivals trace"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ftp://127.0.0.1:1/ --rate 10", "accepted: http"),
        ("127.0.0.1:1 --rate 10", "accepted: http"),
        ("http://127.0.0.1:99999/ --rate 10", "needs a host and a port"),
        ("grpc://127.0.0.1:1/method --rate 10", "needs a method"),
        ("http://[::1/ --rate 10", "url="),
        ("http://127.0.0.1:1/é --rate 10", "url="),
        (f"{GOOD} --body absent", "--body 'absent' cannot be read: No such file"),
        (f"{GOOD} --body empty", "--body 'empty' is empty"),
        (f"{GOOD} --body .", "--body '.' is empty, or holds an empty file"),
        (
            "http://127.0.0.1:1/ --rate 0.001 --duration 0.001",
            "no request falls into this time: raise --rate or --duration",
        ),
        ("http://127.0.0.1:1/", "--rate '' for poisson arrivals; accepted: one rate"),
        ("http://127.0.0.1:1/ --rate 0", "rate=0.0 is not an arrival rate"),
        ("http://127.0.0.1:1/ --rate many", "--rate 'many' cannot be used; accepted: a number"),
        ("http://127.0.0.1:1/ --rate 1,2", "accepted: one rate"),
        ("http://127.0.0.1:1/ --rate 1e12", "accepted: at most 100,000,000"),
        (f"{GOOD} --arrivals ramp", "accepted: START,END"),
        (f"{GOOD} --arrivals often", "accepted: constant, gamma, poisson, ramp, steps, trace"),
        (f"{GOOD} --arrivals gamma", "--cv CV is required with --arrivals gamma and not allowed otherwise"),
        (f"{GOOD} --cv 2", "--cv CV is required with --arrivals gamma and not allowed otherwise"),
        (f"{GOOD} --arrivals gamma --cv 1000", "cv=1000.0"),
        (f"{GOOD} --duration nan", "--duration 'nan'"),
        (f"{GOOD} --timeout 0", "--timeout '0' cannot be used; accepted: a number above 0"),
        (f"{GOOD} --warmup -1", "--warmup '-1'"),
        (f"{GOOD} --connections 0", "--connections '0' cannot be used; accepted: a whole number from 1"),
        (f"{GOOD} --connections 2 --shards 3", "cannot be shared"),
        (f"{GOOD} --seed x", "--seed 'x'"),
        (f"{GOOD} --header nocolon", "is not a header"),
        (f"{GOOD} --header sp+ace:x --header ():x", "'():x' is not a header"),
        (f"{GOOD} --header a:\r\nb:c", "is not a header"),
        (f"{GOOD} --header a:1 --header A:2", "given twice"),
        (f"{GOOD} --header content-length:5", "set by the engine"),
        (f"{GOOD} --gzip --header content-encoding:br", "set by the engine"),
        (f"{GOOD} --out rows.csv", "ends in .parquet"),
        (f"{GOOD} --out absent/rows.parquet", "cannot be written"),
        (f"{GOOD} --trace other.csv", "--trace FILE is required with --arrivals trace and not allowed otherwise"),
        (TRACE, "--trace FILE is required with --arrivals trace and not allowed otherwise"),
        (f"{TRACE} --trace absent", "cannot be read: [Errno 2]"),
        (f"{TRACE} --trace empty", "cannot be read"),
        (f"{TRACE} --trace cut.parquet", "cannot be read"),
        (f"{TRACE} --trace other.csv", "no column any of arrival_ns"),
        (f"{TRACE} --trace other.csv --trace-column when", "does not say its unit"),
        (f"{TRACE} --trace other.csv --trace-column x_s", "no column 'x_s'; it has: when, what"),
        (f"{TRACE} --trace text.csv", "does not hold numbers"),
        (f"{TRACE} --trace gap.csv", "row 2: inf is not a time"),
        (f"{TRACE} --trace none.csv", "the trace holds no arrival"),
        (f"{TRACE} --trace at_once.csv --rate 5", "simultaneous"),
        (f"{GOOD} --ca absent", "the load cannot start"),
    ],
)
def test_bad_input_is_one_line(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = options.replace("http://127.0.0.1:1/", "https://127.0.0.1:1/") if "--ca" in options else options
    code = cli.main(["load", *arguments.split(" ")])
    shown = capsys.readouterr()
    assert code == 1
    assert shown.out == ""
    last = shown.err.splitlines()[-1]
    assert last.startswith("infscale: ")
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1 or "%|" in shown.err, shown.err


@pytest.mark.parametrize(
    ("name", "text", "column", "expected"),
    [
        ("t.csv", "arrival_s\n0.5\n2\n1.25\n", "", [500_000_000, 2_000_000_000, 1_250_000_000]),
        ("t.csv", "x,timestamp_ns\n1,1700000000123456789\n2,1700000000123456790\n", "", [1700000000123456789] * 2),
        ("t.csv", "began_s,arrival_ns\n3,7\n", "began_s", [3_000_000_000]),
    ],
)
def test_traces_are_read_to_the_nanosecond(
    tmp_path: Path, name: str, text: str, column: str, expected: list[int]
) -> None:
    (tmp_path / name).write_text(text)
    times = load_trace.read(tmp_path / name, column)
    assert times.dtype == np.int64
    expected = [t + (i if "ns" in text and not column else 0) for i, t in enumerate(expected)]
    assert times.tolist() == expected


def test_a_trace_with_missing_times_in_parquet_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"arrival_ns": pd.array([1, None, 3], dtype="Int64")}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2"):
        load_trace.read(tmp_path / "t.parquet")


HEAVY = (
    "tensorflow",
    "torch",
    "grpc",
    "google.protobuf",
    "infscale.models.reference",
    "infscale.payloads.encoders",
    "infscale.deployment",
)
LIGHT = f"""
import sys
from infscale import cli
assert not any(m in sys.modules for m in ("numpy", "pandas", "scipy")), "the options alone must not cost seconds"
code = cli.main(sys.argv[1:])
print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def test_it_knows_no_models_and_no_frameworks() -> None:
    """A generator that loads TensorFlow takes seconds, and hundreds of megabytes from the server it measures."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}/"
    options = ("load", url, "--rate", "20", "--duration", "0.2", "--json")
    shown = subprocess.run([sys.executable, "-c", LIGHT, *options], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 4, shown.stderr
    assert shown.stderr.splitlines()[-1] == ""
