"""``infscale completion``: the line that teaches a shell to complete commands, options, files, runs and findings."""

import click
from click.shell_completion import get_completion_class

from infscale.cli.candidates import SHELLS
from infscale.cli.options import Argument, Command
from infscale.errors import one_of

VARIABLE = "_INFSCALE_COMPLETE"
"""The variable of the environment with which a shell asks what could follow."""


def _run(shell: str) -> None:
    """Print the script that a shell reads.

    Raises:
        ConfigError: an unknown shell.
    """
    from infscale.cli import APP

    known = get_completion_class(one_of("shell", shell, SHELLS))
    assert known is not None
    click.echo(known(APP, {}, "infscale", VARIABLE).source())


command = Command(
    "completion",
    _run,
    [Argument(["shell"], help="bash, zsh or fish.")],
    help="Print the script by which a shell completes commands, options, files, runs and findings. One line in the "
    "shell's start-up file reads it anew in each shell; it needs infscale on PATH.",
    notes='In ~/.bashrc: eval "$(infscale completion bash)". In ~/.zshrc: eval "$(infscale completion zsh)". In '
    "~/.config/fish/config.fish: infscale completion fish | source.",
    examples=("infscale completion bash", "infscale completion zsh", "infscale completion fish"),
)
