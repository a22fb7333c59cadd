"""``infscale completion``: the line that teaches a shell to complete commands, options, files, runs and findings."""

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from infscale.cli.options import Argument, Command, Option
from infscale.errors import one_of

SHELLS = ("bash", "fish", "zsh")
"""The shells that can be taught."""

VARIABLE = "_INFSCALE_COMPLETE"
"""The variable of the environment with which a shell asks what could follow."""

VALUES = {
    "--profile": ("quick", "full", "tiny"),
    "--frameworks": ("tfserving", "torchserve", "triton"),
    "--protocols": ("rest", "grpc"),
    "--protocol": ("rest", "grpc"),
    "--arrivals": ("poisson", "constant", "gamma", "ramp", "steps", "trace"),
    "--order": ("random", "in-order", "shuffled"),
    "--quantile": ("p50", "p95", "p99"),
    "--cache": ("none", "gateway", "server"),
    "--way": ("auto", "binary", "docker", "embedded"),
    "--balancer": ("round-robin", "random", "least-requests", "power-of-two", "envoy-least-request", "l4"),
}
"""Option → the values that it takes."""

OF_ARGUMENTS = {
    "framework": ("tfserving", "torchserve", "triton"),
    "model": ("noop", "mlp", "cnn", "image", "photo", "stream"),
    "shell": SHELLS,
    "tool": ("guidellm", "k6"),
}
"""Argument → the values that it takes, or some of them."""

RUNS = ("run", "runs", "reference", "candidate")
"""Arguments that may be the folder of a run."""


def candidates(param: click.Parameter, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return what could be written for an option or an argument of a command that begins with ``incomplete``."""
    placeholder = (param.metavar or "").lstrip("[")
    if isinstance(param, Option):
        known: Iterable[str] = VALUES.get(param.opts[0], ())
    else:
        known = OF_ARGUMENTS.get(param.name or "", ())
    if param.name in RUNS and not (isinstance(param, Option) and param.opts[0] != "--run"):
        known = _runs()
    elif param.name == "name" and not isinstance(param, Option):
        known = _names(ctx.info_name or "")
    found = [CompletionItem(value) for value in known if value.startswith(incomplete)]
    if not found and (placeholder.startswith(("FILE", "FOLDER")) or param.name in RUNS):
        return [CompletionItem(incomplete, type="file" if placeholder.startswith("FILE") else "dir")]
    return found


def _runs() -> list[str]:
    """Return the stored runs from the project's root, the newest first."""
    from infscale.paths import project_root

    root = project_root()
    files = (file for place in ("data/raw", "data/sample") for file in root.glob(f"{place}/[!.]*/run.json"))
    return [str(file.parent.relative_to(root)) for file in sorted(files, reverse=True)]


def _names(command: str) -> list[str]:
    """Return the names that a command's argument takes: findings, or schemas."""
    if command == "schema":
        from infscale.cli.schema import kinds

        return list(kinds())
    from infscale.findings import FINDINGS

    return list(FINDINGS)


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
