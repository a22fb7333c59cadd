"""``infscale locust``: if these fail, a user who wants to explore gets no page, or one that loads nothing."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from helpers.waiting import await_true, gone

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


@contextmanager
def exploring(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """``infscale locust`` as a user starts it, and the address of its page."""
    command = [sys.executable, "-m", "infscale.cli", "locust", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("Locust "))
            yield process, line.split()[1]
        finally:
            process.kill()


def asked(address: str, form: dict[str, str] | None = None) -> str:
    data = urllib.parse.urlencode(form).encode() if form else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, data, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def answered(address: str) -> tuple[int, int]:
    """Requests and failures by Locust's own statistics."""
    total = json.loads(asked(f"{address}/stats/requests"))["stats"][-1]
    assert total["name"] == "Aggregated"
    return total["num_requests"], total["num_failures"]


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_swarm_of_the_page_loads_the_model_and_ctrl_c_leaves_nothing(protocol: str) -> None:
    with exploring("triton", "noop", "--protocol", protocol) as (process, address):
        assert "<title>Locust</title>" in asked(address)
        begun = json.loads(asked(f"{address}/swarm", {"user_count": "2", "spawn_rate": "2", "host": ""}))
        assert begun["success"]
        await_true(lambda: answered(address)[0] > 20)
        assert answered(address)[1] == 0
        started = [one.pid for one in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        await_true(lambda: all(gone(pid) for pid in started))


@pytest.mark.server
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium (Debian, Ubuntu)")
def test_the_page_opens_in_a_browser(tmp_path: Path) -> None:
    with exploring("triton", "noop") as (_, address):
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--no-proxy-server"]
        command = [CHROMIUM, *options, "--virtual-time-budget=10000", "--dump-dom", address]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    seen = re.sub(r"<[^>]+>", " ", shown)
    assert "Start new load test" in seen, "the form that starts users, which a script draws"
    assert "Number of users" in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tf"], "framework='tf' is not known; accepted: tfserving, torchserve, triton"),
        (["triton", "--protocol", "soap"], "protocol='soap' is not known; accepted: grpc, rest"),
        (["triton", "--port", "70000"], "--port '70000' cannot be used; accepted: a whole number from 0 to 65535"),
        (["triton", "--timeout", "0"], "--timeout '0' cannot be used; accepted: a number above 0"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "infscale.cli", "locust", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 1
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
