"""grpcio's Python client as the reader of streams: one JSON argument (see :class:`Order`), one line of JSON out."""

import json
import resource
import sys
import threading
import time
from dataclasses import dataclass

import grpc


@dataclass(frozen=True)
class Order:
    """What to read: ``streams`` at a time of ``method``, a thread each, the first requests ``step_s`` apart."""

    address: str
    method: str
    streams: int
    step_s: float


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(order: Order) -> dict[str, float]:
    """Read all streams to their end and note each message's time; returns messages, CPU and wall time, s."""
    with grpc.insecure_channel(order.address) as channel:
        grpc.channel_ready_future(channel).result(30)
        call = channel.unary_stream(order.method, None, None)
        times: list[list[int]] = [[] for _ in range(order.streams)]
        began, before = time.monotonic(), _cpu_s()

        def one(k: int) -> None:
            time.sleep(max(0.0, began + k * order.step_s - time.monotonic()))
            for _ in call(b"a body of no meaning"):
                times[k].append(time.monotonic_ns())

        threads = [threading.Thread(target=one, args=(k,)) for k in range(order.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"messages": sum(map(len, times)), "cpu_s": _cpu_s() - before, "wall_s": time.monotonic() - began}


if __name__ == "__main__":
    print(json.dumps(measure(Order(**json.loads(sys.argv[1])))))
