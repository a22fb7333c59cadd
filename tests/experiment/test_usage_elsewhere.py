"""If these fail, what servers on other machines use is not known, or is somebody else's."""

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from infscale.errors import ConfigError, DeploymentError
from infscale.experiment.usage.elsewhere import Elsewhere, prometheus
from infscale.load.cluster.connect import connected
from infscale.load.cluster.spec import parse

# ------------------------------------------------------------ a stand-in for Prometheus, no real server of it

Samples = dict[str, list[list[tuple[float, float]]]]


@contextmanager
def stand_in(samples: Callable[[], Samples]) -> Iterator[str]:
    """Answer ``/api/v1/query`` as Prometheus documents it, for the series in ``samples`` by the text of the query."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
            selector = query.rpartition("[")[0]
            found = [{"metric": {}, "values": [[t, str(v)] for t, v in one]} for one in samples().get(selector, [])]
            body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


CPU, MEMORY = 'process_cpu_seconds_total{job="a"}', 'process_resident_memory_bytes{job="a"}'


def test_cpu_and_memory_of_the_scrapes_around_the_load() -> None:
    """Two processes, scraped every 5 s, that use 0.5 and 1.5 cores; one began anew in between."""
    at = [100.0 + 5 * k for k in range(9)]
    samples = {
        CPU: [
            [(t, 0.5 * (t - 50)) for t in at],
            [(t, 1.5 * (t - 50)) if t < 120 else (t, 1.5 * (t - 115)) for t in at],
        ],
        MEMORY: [[(t, 1e9) for t in at], [(t, 2e9) for t in at]],
    }
    with stand_in(lambda: samples) as url:
        usage = prometheus(url, 'job="a"', 112.0, 128.0)
    assert usage.cores == pytest.approx(2.0)
    assert usage.processes == 2
    assert usage.rss_peak_bytes == 3e9


def test_a_counter_of_ones_own() -> None:
    query = 'container_cpu_usage_seconds_total{pod="p"}'
    with stand_in(lambda: {query: [[(0.0, 1.0), (10.0, 4.0)]]}) as url:
        usage = prometheus(url, query, 2.0, 8.0)
    assert usage.cores == pytest.approx(0.3)
    assert usage.rss_peak_bytes is None


def test_a_prometheus_that_knows_nothing_is_said_before_the_run() -> None:
    with stand_in(dict) as url:
        watched = Elsewhere({"server": f'prometheus:{url}#job="typo"'})
        with pytest.raises(DeploymentError, match="no two samples"):
            watched.reach(None)
    with pytest.raises(DeploymentError, match="does not answer"):
        prometheus("http://127.0.0.1:1", 'job="a"', 0, 1)


def test_a_group_of_prometheus_stands_in_the_trial() -> None:
    def samples() -> Samples:
        now = time.time()
        return {CPU: [[(now - 60 + 5 * k, 0.25 * k * 5) for k in range(13)]]}

    with stand_in(samples) as url:
        watched = Elsewhere({"server": f'prometheus:{url}#job="a"'})
    assert watched.groups(time.monotonic_ns(), 1.0) == {}, "a Prometheus that is gone costs its group, not the trial"
    with stand_in(samples) as url, Elsewhere({"server": f'prometheus:{url}#job="a"'}) as watched:
        groups = watched.groups(time.monotonic_ns() - 10**9, 1.0)
    assert groups["server"].cores == pytest.approx(0.25)


@pytest.mark.parametrize(
    "source", ["nowhere", "host:", "host:0", "host:99999", "prometheus:http://h:1", "prometheus:h#a"]
)
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="accepted: "):
        Elsewhere({"server": source})


# -------------------------------------------------------------------------------------------------- an agent

BUSY = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    sys.stdin.readline()
    while True: pass
"""


@pytest.fixture
def busy() -> Iterator[tuple["subprocess.Popen[str]", int]]:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.server
def test_an_agent_reads_the_processes_behind_a_port(busy: tuple["subprocess.Popen[str]", int]) -> None:
    """The worker on the server's machine makes no load then; its readings are on the driver's clock."""
    process, port = busy
    assert process.stdin is not None
    with connected(parse("local:1"), reserve=["127.0.0.1"]) as cluster:
        assert len(cluster.members) == 1
        assert cluster.members[0].name not in cluster.reserved
        watched = Elsewhere({"server": f"127.0.0.1:{port}"})
        watched.reach(cluster)
        with watched:
            start = time.monotonic_ns()
            before = psutil.Process(process.pid).cpu_times().user
            process.stdin.write("\n")
            process.stdin.flush()
            while psutil.Process(process.pid).cpu_times().user < before + 0.5:
                time.sleep(0.05)
            seconds = (time.monotonic_ns() - start) / 1e9
        (usage,) = watched.groups(start, seconds).values()
    assert usage.processes == 1
    assert usage.cpu_user_s == pytest.approx(0.5, abs=0.3)
    assert usage.rss_peak_bytes


@pytest.mark.server
def test_a_port_where_nobody_listens_is_said_before_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        connected(parse("local:1"), reserve=["127.0.0.1"]) as cluster,
        pytest.raises(DeploymentError, match=f"listens at port {port}"),
    ):
        Elsewhere({"server": f"127.0.0.1:{port}"}).reach(cluster)
    with pytest.raises(ConfigError, match="needs a worker there"):
        Elsewhere({"server": f"127.0.0.1:{port}"}).reach(None)
