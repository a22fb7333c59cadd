"""A locustfile: FastHttpUser, each user a Poisson stream of its share of the rate (0: send again at once).

A user who is late does not wait, so that the users' superposition is Poisson(λ) while the server answers sooner
than a user's next arrival; beyond that it is a closed loop of so many users, as Locust always is.
"""

import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task  # type: ignore[import-untyped, unused-ignore]

RATE = float(os.environ["BENCH_RATE"]) / int(os.environ["BENCH_USERS"])
PATH = os.environ["BENCH_PATH"]
BODY = Path(os.environ["BENCH_BODY"]).read_bytes()
HEADERS = dict(pair.split("=", 1) for pair in os.environ["BENCH_HEADERS"].splitlines())
DRAW = random.Random(int(os.environ["BENCH_SEED"]))


class Client(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """Posts the body."""

    def on_start(self) -> None:
        """The first arrival is a gap away, too."""
        self.next_s = time.monotonic()
        time.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Seconds until this user's next scheduled time."""
        if not RATE:
            return 0.0
        self.next_s += DRAW.expovariate(RATE)
        return max(0.0, self.next_s - time.monotonic())

    @task
    def post(self) -> None:
        """One request."""
        self.client.post(PATH, data=BODY, headers=HEADERS)  # type: ignore[arg-type, unused-ignore]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@events.test_start.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def begin(**_: Any) -> None:
    """The load starts: users are spawned from now on."""
    global BEFORE
    BEFORE = _cpu_s()


@events.quitting.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def end(**_: Any) -> None:
    """Say what the load has cost."""
    print(f"client_cpu_s {_cpu_s() - BEFORE:.6f}", file=sys.stderr)


BEFORE = 0.0
