"""If these fail, drawing a figure needs a server's packages, or two users have different environments."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from helpers.project import ROOT

HEAVY = ("tensorflow", "torch", "grpc", "google.protobuf", "ts", "infscale.load.engine", "infscale.deployment")
PURE = (
    *("arrivals", "samples", "validity", "trial_table", "summary", "figures", "paper", "report"),
    *("cost", "usage_table", "figures_usage"),
)


@pytest.mark.parametrize("module", PURE)
def test_statistics_and_figures_import_no_server_and_no_protocol(module: str) -> None:
    code = f"import infscale.{module}, sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_environments_install_the_same_pinned_set() -> None:
    """conda's file and the Makefile must read one list, whole and exact."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(part["pip"] for part in dependencies if isinstance(part, dict))
    assert pip == ["--requirement requirements.txt", "--editable ."]
    assert "pip install --quiet --requirement requirements.txt" in (ROOT / "Makefile").read_text()
    pins = pinned()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(n for extra in project["optional-dependencies"].values() for n in extra)]
    assert {canonical(name) for name in named} <= set(pins)


def test_this_environment_is_the_pinned_one() -> None:
    import importlib.metadata as metadata

    differing = {n: (v, metadata.version(n)) for n, v in pinned().items() if metadata.version(n).partition("+")[0] != v}
    assert differing == {}


def test_torch_is_pinned_exactly() -> None:
    assert pinned()["torch"] == "2.13.0"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#"))
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_library_is_not_ignored_by_git() -> None:
    files = [str(path.relative_to(ROOT)) for path in Path(ROOT / "lib" / "infscale").rglob("*.py")]
    ignored = subprocess.run(["git", "-C", str(ROOT), "check-ignore", *files], capture_output=True, text=True)
    assert ignored.stdout == ""
