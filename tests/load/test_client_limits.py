"""Limits of the client: if these fail, a reader blames a server for descriptors or ports that the generator lacked."""

import errno
import json
import socket
import subprocess
import sys
from array import array
from functools import partial

import numpy as np
import pandas as pd
import pytest

from helpers.synthetic_run import generator_of, host_of
from helpers.virtual_server import VirtualServer, VirtualSocket
from infscale.load.clients import _why
from infscale.load.engine import status
from infscale.load.engine.interfaces import Limits
from infscale.load.engine.job import Job, codec_factory
from infscale.load.engine.loop import Engine
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED
from infscale.records.gates.generator import RAISE, own_limits
from infscale.records.gates.verdict import judge
from infscale.servers.null.http1 import Http1Server, replies
from infscale.vocabulary import CLIENT_LIMITS

LIMITED = """
import json, resource, sys
import numpy as np
from infscale.load.engine import run as engine
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
schedule = np.arange(100) * 2_000_000
result = engine.run(sys.argv[1], [b"body"], [schedule], [np.zeros(100, np.int32)], timeout_s=0.5, connections=256)
print(json.dumps([result.samples["status"].value_counts().to_dict(), result.generator.error, result.generator.limit]))
"""


def loaded_under(soft: int, hard: int) -> tuple[dict[str, int], str, str]:
    """Load a server that never answers, so that each request needs a connection of its own, under limits of files.

    Returns:
        How many of the 100 requests ended in each status, the engine's error, and the limit that it met.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        command = [sys.executable, "-c", LIMITED, url, str(soft), str(hard)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    statuses, error, limit = json.loads(shown.stdout)
    return {name: n for name, n in statuses.items() if n}, error, limit


def test_with_too_few_files_requests_wait_for_connections_and_the_limit_is_told() -> None:
    """They looked like a server that refuses connections."""
    statuses, error, limit = loaded_under(40, 40)
    assert statuses == {"timeout": 100}
    assert limit == "EMFILE"
    assert "Too many open files" in error


def test_the_engine_takes_as_many_files_as_it_may() -> None:
    """The soft limit is 1,024 on most systems, where the hard one is a thousand times that."""
    statuses, _, limit = loaded_under(40, 400)
    assert (statuses, limit) == ({"timeout": 100}, "")


class Short(VirtualServer):
    """A server in memory to which no connection can be made beyond ``most``, for want of something here."""

    number = 0
    most = 1

    def connect(self, target: int = 0) -> VirtualSocket:
        if len(self.requests_on) >= self.most:
            raise OSError(self.number, "")
        return super().connect(target)


def outcomes(world: VirtualServer) -> tuple[list[str], str]:
    """Return the statuses of two requests 1 ms apart, over a server that takes 5 ms for each; and the limit met."""
    schedule, limits = array("q", [0, 1_000_000]), Limits(10**9, 256, 1)
    job = Job("http://virtual:1/", [b"body"], schedule, array("i", [0, 0]), limits)
    engine = Engine(world, codec_factory(job), job.schedule, job.choice, limits)
    engine.open(10**9)
    engine.run(world.now())
    return [status.name(code) for code in engine.rows.outcome], status.limit_name(engine.limit)


def world() -> Short:
    return Short(partial(Http1Server, replies(b"reply"), {}), [5_000_000] * 10)


@pytest.mark.parametrize("name", CLIENT_LIMITS)
def test_each_limit_is_a_status_of_its_own_where_there_is_no_connection_to_wait_for(name: str) -> None:
    short = world()
    short.number = getattr(errno, name)
    assert outcomes(short) == (["ok", "ok"], name)
    short = world()
    short.number, short.most = getattr(errno, name), 0
    assert outcomes(short) == ([f"client_{name}"] * 2, name)
    assert samples.is_status(f"client_{name}")


def test_what_the_server_refuses_is_not_the_clients() -> None:
    short = world()
    short.number = errno.ECONNREFUSED
    assert outcomes(short) == (["ok", "refused"], "")


@pytest.mark.parametrize(("number", "name"), [(errno.ENOBUFS, "client_ENOBUFS"), (errno.ECONNRESET, "reset")])
def test_a_send_that_fails_for_want_of_buffers_is_the_clients(
    number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called a reset, it would be the server's."""

    def send(self: VirtualSocket, data: bytes | memoryview) -> int:
        raise OSError(number, "")

    short = world()
    short.number = number
    monkeypatch.setattr(VirtualSocket, "send", send)
    assert outcomes(short)[0][0] == name


def test_a_library_that_ran_out_is_told_apart_too() -> None:
    message = "HTTPConnectionPool: Max retries exceeded: Failed to establish a new connection: [Errno {}] why"
    assert _why(message.format(errno.EADDRNOTAVAIL)) == "client_EADDRNOTAVAIL"
    assert _why(message.format(f"{errno.ECONNREFUSED}] Connection refused [")) == "refused"
    assert _why("Connection aborted") == "reset"


def trial(failed_by: str) -> pd.DataFrame:
    """A sound trial of which the last request failed."""
    frame = samples.synthetic(np.arange(1000) * 2_000_000, np.full(1000, 1_000_000), lag_ns=60_000)
    statuses = frame["status"].to_numpy(dtype=object).copy()
    statuses[-1] = failed_by
    return frame.assign(status=statuses)


@pytest.mark.parametrize("name", CLIENT_LIMITS)
@pytest.mark.parametrize("client", ["wire", "requests"])
def test_one_such_request_makes_the_trial_invalid(name: str, client: str) -> None:
    """The sentence says what ran out, and how to have more of it."""
    verdict = judge(trial(f"client_{name}"), 2.0, generator_of(client=client), host_of())
    assert (verdict.name, verdict.reasons) == (INVALID, ("own_limits",))
    assert f"a limit of the client ended 1 of 1000 requests: {RAISE[name]} ({name})" in verdict.text


def test_a_limit_that_made_requests_wait_makes_the_trial_invalid_too() -> None:
    """Its response times are those of fewer connections than were asked for."""
    generator = generator_of()
    generator.limit = "EMFILE"
    verdict = judge(trial("ok"), 2.0, generator, host_of())
    assert (verdict.name, verdict.reasons) == (INVALID, ("own_limits",))
    assert f"so that requests waited: {RAISE['EMFILE']}" in verdict.text


def test_failures_of_the_server_pass() -> None:
    assert own_limits(trial("refused")).passed
    refused = trial("ok").assign(status="refused")
    assert judge(refused, 2.0, generator_of(), host_of()).name == SATURATED
