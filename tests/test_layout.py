"""If these fail, drawing a figure needs a server's packages, or two users have different environments."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import infscale
from helpers.project import ROOT

PACKAGE = ROOT / "lib" / "infscale"
HEAVY = (
    *("google.protobuf", "grpc", "hpack", "psutil", "tensorflow", "torch", "ts"),
    *(f"infscale.{folder}" for folder in ("load", "deployment", "servers", "payloads", "models")),
)
"""What only measuring needs: protocols, frameworks, and the folders that use them."""
READING = ("records", "analysis", "findings", "report")
"""Folders of what only reads what was measured."""
FREE = ("findings", "cli")
"""Folders that may hold any number of modules: one for a finding, one for a command."""


def printed(code: str) -> list[str]:
    """Run Python code in a process of its own and return the words that it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_imports_follow_the_layers() -> None:
    """The contracts are in pyproject.toml; they count imports inside functions, too."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_what_reads_imports_no_server_and_no_protocol() -> None:
    """``make figures`` works on a machine that has none of their packages."""
    files = [file for folder in READING for file in sorted((PACKAGE / folder).rglob("*.py"))]
    modules = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module.removesuffix(".__init__"))
    print(*[f"{{module}}:{{heavy}}" for heavy in {HEAVY} if sys.modules.pop(heavy, None)])
"""
    assert len(modules) > len(READING)
    assert printed(code) == []


def test_importing_the_package_costs_next_to_nothing() -> None:
    """A notebook's first line, and every command's, pays for it."""
    assert printed("import infscale, sys; print(*[m for m in sys.modules if m.startswith('infscale')])") == ["infscale"]


def test_the_names_that_a_researcher_types_are_there() -> None:
    for name, module in infscale.NAMES.items():
        assert getattr(infscale, name) is getattr(sys.modules[module], name)
        assert name in dir(infscale)
    source = (PACKAGE / "__init__.py").read_text()
    declared = re.findall(r"^    from (\S+) import (\w+) as \w+$", source, re.MULTILINE)
    assert {name: module for module, name in declared} == infscale.NAMES, "type checkers know other names"
    with pytest.raises(AttributeError, match="no attribute 'deplyo'"):
        infscale.deplyo  # noqa: B018


def test_no_folder_holds_more_modules_than_a_reader_can_survey() -> None:
    folders = [folder for folder in PACKAGE.rglob("*") if folder.is_dir() and folder.name not in FREE]
    sizes = {folder: sum(not file.name.startswith("__") for file in folder.glob("*.py")) for folder in folders}
    assert {str(folder.relative_to(PACKAGE)): size for folder, size in sizes.items() if size > 9} == {}


def test_environments_install_the_same_pinned_set() -> None:
    """conda's file and the Makefile must read one list, whole and exact."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(part["pip"] for part in dependencies if isinstance(part, dict))
    assert pip == ["--requirement requirements.txt", "--editable ."]
    assert "pip install --quiet --no-compile --requirement requirements.txt" in (ROOT / "Makefile").read_text()
    pins = pinned()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(n for extra in project["optional-dependencies"].values() for n in extra)]
    assert {canonical(name) for name in named} <= set(pins)


def test_this_environment_is_the_pinned_one() -> None:
    import importlib.metadata as metadata

    differing = {n: (v, metadata.version(n)) for n, v in pinned().items() if metadata.version(n).partition("+")[0] != v}
    assert differing == {}


def test_every_pinned_package_takes_the_oldest_python_that_the_project_takes() -> None:
    """Debian 12 has Python 3.11.2: a pin that needs 3.11.5 ends its users' first command with "no matching version"."""
    import importlib.metadata as metadata

    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "3.11.0" in SpecifierSet(project["requires-python"])
    needs = {name: str(metadata.metadata(name).json.get("requires_python", "")) for name in pinned()}
    assert {name: need for name, need in needs.items() if "3.11.0" not in SpecifierSet(need)} == {}


def test_torch_is_pinned_exactly() -> None:
    assert pinned()["torch"] == "2.13.0"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#"))
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_library_is_not_ignored_by_git() -> None:
    files = [str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")]
    ignored = subprocess.run(["git", "-C", str(ROOT), "check-ignore", *files], capture_output=True, text=True)
    assert ignored.stdout == ""
