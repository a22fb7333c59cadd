"""What a shell may offer for the value of an option or an argument: known values, files, runs and findings."""

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

SHELLS = ("bash", "fish", "zsh")
"""The shells that can be taught."""

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
    "model": ("noop", "device", "mlp", "cnn", "image", "photo", "stream"),
    "shell": SHELLS,
    "tool": ("guidellm", "k6"),
}
"""Argument → the values that it takes; of a model those of reference models."""

NAMES = {
    "finding": (
        *("protocols", "encodings", "hybrid", "caching", "utilisation", "load-balancing", "porting", "client-stacks"),
        *("network", "load-tools", "streaming", "planning"),
    ),
    "schema": (
        *("manifest-run", "manifest-trial", "manifest-load", "finding", "advice", "audit", "capacity", "compare"),
        *("doctor", "import", "load", "merge", "plan", "plan-capacity", "runs", "show", "show-two", "summary"),
    ),
}
"""Command → the names that it takes. To read them where they are made would import what draws: seconds for a key."""

RUNS = ("run", "runs", "reference", "candidate")
"""Arguments that may be the folder of a run."""


def candidates(param: click.Parameter, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return what could be written for an option or an argument of a command that begins with ``incomplete``."""
    placeholder = (param.metavar or "").lstrip("[")
    if isinstance(param, click.Option):
        known: Iterable[str] = VALUES.get(param.opts[0], ())
    else:
        known = OF_ARGUMENTS.get(param.name or "", ())
    if param.name in RUNS and not (isinstance(param, click.Option) and param.opts[0] != "--run"):
        known = _runs()
    elif param.name == "name" and not isinstance(param, click.Option):
        known = NAMES.get(ctx.info_name or "", ())
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
