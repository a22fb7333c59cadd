"""If these fail, ``pytest -m "not server"`` starts servers unseen, and takes as long as the whole suite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.watch import sitecustomize as watch

CHILD = """
import subprocess
server = "/nowhere/" + "ja" + "va"  # or the command of this child would be taken for one
for command in ([server, "-jar", "x.jar"], [server, "-version"], ["/bin/true"]):
    try:
        subprocess.run(command)
    except FileNotFoundError:
        pass
"""


@pytest.mark.parametrize(
    ("command", "server"),
    [
        (["/opt/jre/bin/java", "-Xmx256m", "org.pytorch.serve.ModelServer"], "java"),
        (
            ["python", "-S", "supervise.py", '{"command": ["ip", "netns", "exec", "a", "/x/tritonserver"]}'],
            "tritonserver",
        ),
        (["python", "-m", "infscale.servers.null.process"], "infscale.servers.null"),
        ("envoy --config-path x", "envoy"),
        (["/usr/sbin/nginx", "-v"], ""),
        (["python", "-m", "infscale.load.engine.child"], ""),
        (["ls", "/etc/nginx/conf.d", "javascript"], ""),
    ],
)
def test_a_command_that_starts_a_server_is_known(command: object, server: str) -> None:
    assert watch.server_of(command) == server


def test_a_server_that_a_child_starts_is_noted(tmp_path: Path) -> None:
    env = os.environ | {watch.NOTES: str(tmp_path / "notes"), "PYTHONPATH": str(Path(watch.__file__).parent)}
    subprocess.run([sys.executable, "-c", CHILD], env=env, check=True)
    assert (tmp_path / "notes").read_text() == "java\n"
