"""MLPerf LoadGen's Server scenario (its own Poisson schedule) with the cheapest plain Python client behind it.

REST: worker threads, each with a keep-alive ``http.client`` connection and a ready-made body, fed by a
``SimpleQueue``: the standard library's fastest way, with no session, cookies or encoding above it.
gRPC: grpcio's ``future`` calls with a done callback: its asynchronous call that needs no thread of ours.
"""

import http.client
import json
import queue
import resource
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg  # type: ignore[import-not-found, unused-ignore]

Issue = Callable[[Sequence[Any]], None]


class Count:
    """Queries issued and answers that were not right."""

    issued = 0
    errors = 0


def _complete(query_id: int, good: bool, count: Count) -> None:
    count.errors += not good
    lg.QuerySamplesComplete([lg.QuerySampleResponse(query_id, 0, 0)])


def rest(order: dict[str, Any], body: bytes, count: Count) -> Issue:
    """Issue over HTTP/1.1 from ``order["workers"]`` threads."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work() -> None:
        connection = http.client.HTTPConnection(order["address"], timeout=30)
        while True:
            query_id = waiting.get()
            try:
                connection.request("POST", order["path"], body, order["headers"])
                answer = connection.getresponse()
                answer.read()
                good = answer.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                good = False
            _complete(query_id, good, count)

    for _ in range(order["workers"]):
        threading.Thread(target=work, daemon=True).start()

    def issue(samples: Sequence[Any]) -> None:
        count.issued += len(samples)
        for sample in samples:
            waiting.put(sample.id)

    return issue


def grpc(order: dict[str, Any], body: bytes, count: Count) -> Issue:
    """Issue over gRPC on one channel."""
    import grpc as grpcio

    channel = grpcio.insecure_channel(order["address"], options=[("grpc.enable_http_proxy", 0)])
    grpcio.channel_ready_future(channel).result(10)
    method: Any = channel.unary_unary(order["path"], None, None)

    def issue(samples: Sequence[Any]) -> None:
        count.issued += len(samples)
        for sample in samples:
            call = method.future(body)
            call.add_done_callback(lambda done, i=sample.id: _complete(i, done.code().value[0] == 0, count))

    return issue


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the order in argv[1]; the result is in ``mlperf_log_summary.txt`` in the working folder."""
    order, count = json.loads(sys.argv[1]), Count()
    issue = {"rest": rest, "grpc": grpc}[order["protocol"]](order, Path(order["body"]).read_bytes(), count)
    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Server
    settings.mode = lg.TestMode.PerformanceOnly
    settings.server_target_qps = order["rate_per_s"]
    settings.server_target_latency_ns = 10**9
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = order["count"]
    settings.schedule_rng_seed = order["seed"]
    log = lg.LogSettings()
    log.enable_trace = False
    log.log_output.copy_summary_to_stdout = False
    sut, qsl = lg.ConstructSUT(issue, lambda: None), lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    before = _cpu_s()
    lg.StartTestWithLogSettings(sut, qsl, settings, log)
    cpu_s = _cpu_s() - before
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    print(f"issued {count.issued}\nerrors {count.errors}\nclient_cpu_s {cpu_s:.6f}")


if __name__ == "__main__":
    main()
