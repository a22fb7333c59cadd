"""``infscale schema``: the JSON Schema of what is stored, and of what commands print with ``--json``."""

from pathlib import Path

import click

from infscale.cli.options import Argument, Command, option


def _run(name: str, into: str) -> None:
    """Print a schema, or the names of all; or write them all to a folder.

    Raises:
        ConfigError: there is no schema of this name, or the folder cannot be written.
    """
    from infscale.cli.schemas import encoded, kinds, write

    if into:
        click.echo(f"written: {', '.join(str(file) for file in write(Path(into)))}", err=True)
    if name:
        click.echo(encoded(name), nl=False)
    elif not into:
        for one, kind in kinds().items():
            print(f"{one:14}  {(kind.__doc__ or '').partition('.')[0].replace('`', '')}")


command = Command(
    "schema",
    _run,
    [
        Argument(["name"], required=False, default="", help="Such as load or manifest-run; without it, all names."),
        option("--into", section="Output", default=""),
    ],
    help="Print the JSON Schema of a stored manifest, or of what a command prints with --json. NAME is that of the "
    "command (of 'plan capacity' plan-capacity; of figures, finding and paper: finding), or manifest-run, "
    "manifest-trial (a row of trials.parquet) or manifest-load (beside the rows of load --out).",
    examples=("infscale schema", "infscale schema load", "infscale schema --into docs/schema"),
)
