"""If these fail, workers on other machines make another load than workers on this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from benchmarks import namespaces

from infscale.deployment.fronts.link import Link
from infscale.errors import MissingError
from infscale.programs import find_program

pytestmark = pytest.mark.server


@pytest.fixture
def network() -> None:
    if os.geteuid() != 0 or find_program("ip") is None:
        pytest.skip("network namespaces need root and ip: apt-get install iproute2")
    try:
        with namespaces.machines(1, Link(100)):
            pass
    except (MissingError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this kernel has no bridges, or may not make them here: {error}")


def test_two_machines_load_a_third_over_links(network: None, tmp_path: Path) -> None:
    """All share this machine's clock: the offsets that are found are nothing but error."""
    out = tmp_path / "rows.parquet"
    options = ["--rate", "200", "--duration", "2", "--out", str(out)]
    namespaces.load(Link(100), 2, options, tmp_path)
    rows, manifest = pd.read_parquet(out), json.loads(out.with_suffix(".json").read_text())
    assert set(rows["shard"]) == {0, 1}
    assert (rows["status"] == "ok").all()
    workers = manifest["generator"]["workers"]
    assert len(workers) == 2
    for worker in workers:
        assert not worker["lost"]
        assert abs(worker["offset_ns"]) <= 2 * worker["within_ns"]


def test_a_loopback_address_is_refused_there(network: None, tmp_path: Path) -> None:
    with (
        namespaces.machines(2, Link(None)) as (driver, other),
        namespaces.scheduled(driver, [other], tmp_path) as scheduler,
    ):
        line = [sys.executable, "-m", "infscale.cli", "load", "http://127.0.0.1:9/", "--rate", "10"]
        command = driver.command(*line, "--cluster", scheduler)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is an address on the worker's own machine" in done.stderr
