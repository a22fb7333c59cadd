"""The fenced blocks of Markdown pages: found, read as commands, and run as a reader would run them.

A comment directly above a block says how a test treats it, so that it can be seen in the source:

- ``<!-- not run: REASON -->``: it is not run;
- ``<!-- tested with: A → B; C → D -->``: it is run with these texts replaced, to be over within seconds;
- ``<!-- stays until the end: TEXT -->``: it is a server, which is ready when it has printed that text;
- ``<!-- root -->``: it is run where root can make network namespaces;
- ``<!-- from FILE -->``: it is a part of that file, word for word, which has tests of its own.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.waiting import await_true

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n\n?)?^(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.DOTALL | re.MULTILINE,
)
VERDICTS = ("VALID", "UNSTEADY", "SATURATED", "INVALID")
"""What a load ends with; which of them it is, a busy machine decides, too."""
PROLOGUE = "".join(
    f'{program}() {{ command {program} "$@" || {{ code=$?; [ "$code" = 3 ] || return "$code"; }}; }}\n'
    for program in ("infscale", "python")
)
"""Exit code 3 is INVALID, or undecided: what a machine is to blame for on which tests run beside each other."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its first line of text, its language, its text, the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def run(self) -> bool:
        """Whether a test runs it."""
        return self.language in ("sh", "python") and not self.note.startswith(("not run: ", "from "))

    @property
    def as_tested(self) -> str:
        """Return its text with what the comment replaces."""
        text, (kind, _, changes) = self.text, self.note.partition(": ")
        for change in changes.split("; ") if kind == "tested with" else ():
            old, arrow, new = change.partition(" → ")
            assert arrow, f"{self}: {change!r} is no replacement"
            assert old in text, f"{self}: {old!r} is not in the block"
            text = text.replace(old, new)
        return text

    def commands(self) -> list[list[str]]:
        """Return the commands of shell code as words: one a line, without what is before or behind a pipe."""
        lines = re.sub(r"<<'END'.*?^END$", "", self.text.replace("\\\n", " "), flags=re.DOTALL | re.MULTILINE)
        return [words for line in lines.splitlines() if (words := shlex.split(line, comments=True))]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            found["language"].strip(),
            found["text"],
            found["note"] or "",
        )
        for found in FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Somebody who follows pages: runs their blocks in order, in a folder and with Python names of his own.

    Attributes:
        folder: where commands are run.
        ports: ports that stand in pages → those that are free, or served, here.
        links: whether this machine can have links of a known rate, which need root.
        servers: commands that stay, by their text, and what they have printed.
        printed: what the last block has printed.
    """

    folder: Path
    ports: Mapping[str, str]
    links: bool
    servers: dict[str, tuple["subprocess.Popen[bytes]", Path]] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    def follow(self, block: Block) -> None:
        """Run a block, or compare a block of output with what the last one has printed."""
        if block.language == "text" and not block.note:
            self._compare(block)
        elif block.run and (self.links or block.note != "root"):
            text = re.sub(r"\b\d{4,5}\b", lambda port: self.ports.get(port[0], port[0]), block.as_tested)
            if block.note.startswith("stays until the end: "):
                self._start(text, block.note.partition(": ")[2])
            elif block.language == "sh":
                self._shell(block, text)
            else:
                self._python(block, text)
        else:
            self.printed = ""

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "API_KEY": "key"}

    def _shell(self, block: Block, text: str) -> None:
        command = ["bash", "-euo", "pipefail", "-c", PROLOGUE + text]
        ran = subprocess.run(
            command, cwd=self.folder, env=self._environment(), capture_output=True, text=True, timeout=600
        )
        self.printed = ran.stdout + ran.stderr
        assert ran.returncode == 0, f"{block} ended with {ran.returncode}:\n{text}\n{self.printed}"

    def _python(self, block: Block, text: str) -> None:
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + text, str(block.page), "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(code, self.names)
        self.printed = printed.getvalue()

    def _start(self, text: str, ready: str) -> None:
        if text not in self.servers:
            output = self.folder / f"server-{len(self.servers)}.txt"
            with output.open("wb") as file:
                command = ["bash", "-c", f"exec {text}"]
                process = subprocess.Popen(command, cwd=self.folder, env=self._environment(), stdout=file, stderr=file)
            self.servers[text] = process, output
        process, output = self.servers[text]
        await_true(lambda: ready in output.read_text(), 120, alive=lambda: process.poll() is None)
        self.printed = output.read_text()

    def _compare(self, block: Block) -> None:
        """Check that each line of a page's output begins as one of the real output does, up to a number or colon."""
        if not self.printed:
            return
        real = [_beginning(line) for line in self.printed.splitlines()]
        for line in block.text.splitlines():
            begin = _beginning(line)
            known = not begin or begin.startswith((*VERDICTS, "…")) or any(one.startswith(begin) for one in real)
            assert known, f"{block}: no line of the output begins with {begin!r}:\n{self.printed}"

    def end(self) -> None:
        """End the servers, as Ctrl-C does."""
        for process, _ in self.servers.values():
            process.send_signal(signal.SIGINT)
        for process, _ in self.servers.values():
            process.wait(60)


def _beginning(line: str) -> str:
    return re.split(r"[\d:…]|  ", line.strip(), maxsplit=1)[0].strip()


@contextlib.contextmanager
def reader(folder: Path, ports: Mapping[str, str], *, links: bool) -> Iterator[Reader]:
    """Yield a reader; the servers that he starts end with him."""
    one = Reader(folder, ports, links)
    try:
        yield one
    finally:
        one.end()
