"""If these fail, the first command or code that a reader copies from a page ends in an error."""

import contextlib
import re
import shlex
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
import trustme
import yaml

from helpers import k6_lines
from helpers.pages import Block, Reader, blocks, reader
from helpers.project import ROOT
from infscale import cli, deployment, vocabulary
from infscale.deployment.fronts import link
from infscale.deployment.processes.ports import free_ports
from infscale.errors import MissingError
from infscale.findings import FINDINGS
from infscale.load.null_server import Emission, null_server

DOCS = sorted(page for page in (ROOT / "docs").glob("*.md") if not page.stem.endswith("-simulated"))
PAGES = [ROOT / "README.md", *DOCS]
ALL = [*PAGES, *sorted((ROOT / "docs").glob("*-simulated.md")), *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
ALL += [ROOT / name for name in ("CONTRIBUTING.md", "benchmarks/README.md", "data/README.md", "figures/README.md")]
SHOWN = {"sh", "python", "text", "yaml", "{toctree}", "{help}", "{arms}", "{eval-rst}", "{literalinclude}"}
"""Languages of blocks, and directives of the site."""
RUNNING = [page for page in PAGES if any(block.run for block in blocks(page))]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> trustme.CA:
    return trustme.CA()


K6 = ("points.json", *(f"{side}-{number}.json" for side in ("new", "old") for number in range(1, 5)))
"""Files of k6 that a reader has."""


@pytest.fixture(scope="module")
def secured(ca: trustme.CA) -> Iterator[int]:
    """Serve a reply over TLS that asks for the key which the page's requests have."""

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200 if self.headers["authorization"] == "Bearer key" else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def ports(server_process: None, secured: int) -> Iterator[Mapping[str, str]]:
    """Yield the ports of pages: those of servers that answer there, and free ones for what pages serve themselves."""
    stream = Emission(tuple(range(0, 40_000_000, 2_000_000)))
    with null_server() as plain, null_server(stream=stream) as streams:
        served = {"8080": plain.rest, "8500": plain.grpc, "8090": streams.rest, "8091": streams.grpc}
        named = {name: address.rpartition(":")[2] for name, address in served.items()}
        yield named | {"8443": str(secured)} | dict(zip(("8000", "8001"), map(str, free_ports(2)), strict=True))


@pytest.fixture(scope="module")
def follower(ports: Mapping[str, str], ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "row.json").write_text("{}")
    (folder / "row.bin").write_bytes(b"row")
    (folder / "data").mkdir()
    (folder / "data" / "sample").symlink_to(ROOT / "data" / "sample")
    for name in ("tests", "benchmarks", "docs"):
        (folder / name).symlink_to(ROOT / name)
    for seed, name in enumerate(K6):
        (folder / name).write_bytes(k6_lines.lines(seed=seed))
    with reader(folder, ports, links=_links()) as one:
        yield one


def _links() -> bool:
    try:
        with link.namespace(link.Link(100)):
            return True
    except MissingError:
        return False


@pytest.fixture
def forgetting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back the frameworks, and the places of modules, that a page adds."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*deployment.FRAMEWORKS}
    yield
    for name in {*deployment.FRAMEWORKS} - before:
        del deployment.FRAMEWORKS[name], vocabulary.FRAMEWORK_NAMES[name]


@pytest.mark.server
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_a_page_runs_word_for_word(page: Path, follower: Reader, forgetting: None) -> None:
    """Its blocks are copied as they stand, one after the other; what it says that they print, they print."""
    follower.names.clear()
    for block in blocks(page):
        follower.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Code that no test runs would rot; one that is not run says why."""
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    assert len(re.findall(r"^(?:```|~~~)", text, re.MULTILINE)) == 2 * len(found)
    for block in found:
        assert block.language.split(" ")[0] in SHOWN, f"{block}: {block.language!r} is run by nobody"
        kind, _, file = block.note.partition(" ")
        if kind == "from":
            assert block.text in (ROOT / file).read_text(encoding="utf-8"), f"{block} is not in {file}"
        elif block.language in ("sh", "python") and not block.run:
            assert len(block.note) > len("not run: ") + 5, block
        assert block.as_tested or not block.run
    outside = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"\n\n(?: {4}|\t)\S*(?:infscale|python|make) ", outside), "an indented block is run by nobody"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    """Also where it takes too long to be run: an option that was renamed breaks it."""
    for block in blocks(page):
        for words in block.commands() if block.language == "sh" else ():
            check(words, str(block))
        if block.language == "yaml":
            check_workflow(block)
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`((?:infscale|make) [^`]+)`", prose):
        words = shlex.split(code)
        name = words[1]
        if words[0] == "make":
            check(words, f"{page.name}: {code}")
        else:
            assert name.startswith("-") or not name.islower() or name in cli.APP.list_commands(click.Context(cli.APP))


def check_workflow(block: Block) -> None:
    """Check that a workflow is YAML whose steps call ``infscale`` as it takes it."""
    for job in yaml.safe_load(block.text)["jobs"].values():
        for step in job["steps"]:
            code = re.sub(r"\\\n", " ", step.get("run", ""))
            for call in re.findall(r"bin/(infscale .*?)(?:\|\||$)", code, re.MULTILINE):
                check(shlex.split(call), str(block))


def check(words: list[str], where: str) -> None:
    """Check that a command is one that there is, with options that it has."""
    while words and (words[0] in ("sudo", "exec") or "=" in words[0]):
        words = words[1:]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for target in [word for word in arguments if "=" not in word and not word.startswith("-")]:
            assert target in targets, f"{where}: no target {target}"
    elif program == "python" and arguments[:1] == ["-m"]:
        assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file() or arguments[1] == "pip", where
    elif program == "infscale":
        arguments = arguments[: next((i for i, word in enumerate(arguments) if word in ("|", ">", "&", ";")), None)]
        command: click.Command | None = cli.APP
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            inner = command.get_command(click.Context(command), arguments[0])
            if inner is None and command is not cli.APP:
                break
            command, arguments = inner, arguments[1:]
        assert command is not None, f"{where}: no such command"
        if command is not cli.APP:
            with contextlib.suppress(click.exceptions.Exit):
                command.make_context(where, list(arguments))


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Pages are read in the repository as well as on the site."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_finding_has_its_section() -> None:
    """A finding that stands nowhere is one that nobody measures."""
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert re.findall(r"^```\{arms\} ([\w-]+)$", text, re.MULTILINE) == list(FINDINGS)
