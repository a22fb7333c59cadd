"""Note which server processes are started, by a test itself or by any Python process below it.

A test without the marker ``server`` must start none (tests/conftest.py). The test's own process calls :func:`note`;
its Python children import this module at their start, since its folder is on their path, and it notes for them.
"""

import os
import re
import sys

NOTES = "INFSCALE_TEST_SERVERS_STARTED"
"""Environment variable that names the file of the notes; without it nothing is noted."""
SERVER = re.compile(
    r"(?:^|[/\"\s])(?:java|tritonserver|envoy|nginx|redis-server|tensorflow_model_server)(?:[\"\s]|$)"
    r"|infscale\.servers\.(?:embedded|gateway|null)"
)
"""A program that serves, in an argument of a command or in the JSON that a supervisor gets."""
ONLY_ASKS = {"--version", "-version", "-v", "-V", "--help"}
"""Arguments with which such a program tells something and ends."""


def server_of(command: object) -> str:
    """Return the part of a command that names a server program, or an empty string."""
    parts = command if isinstance(command, list | tuple) else [command]
    texts = [os.fsdecode(part) for part in parts if isinstance(part, str | bytes | os.PathLike)]
    if ONLY_ASKS & set(texts[1:]):
        return ""
    return next((found[0].strip('/" ') for text in texts if (found := SERVER.search(text))), "")


def note(event: str, args: tuple[object, ...]) -> None:
    """Append the server that an audit event starts, if any, to the notes: a hook for ``sys.addaudithook``."""
    if event != "subprocess.Popen" or not (path := os.environ.get(NOTES)):
        return
    if server := server_of(args[1]):
        with open(path, "a", encoding="utf-8") as file:
            file.write(server + "\n")


if __name__ == "sitecustomize":
    sys.addaudithook(note)
