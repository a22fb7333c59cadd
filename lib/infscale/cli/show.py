"""``infscale show``: what a stored run is, and what it found."""

import json as json_module

import click

from infscale.cli.options import Command, option


def _run(run: str, other: str, json: bool) -> None:
    """Print a run: its question, machine and trials, every λ*, and the answer to each named contrast; or two runs.

    Raises:
        InfscaleError: a folder is no run, or nothing of it can be tabulated.
    """
    from infscale.records.runs import load_run
    from infscale.report.listing import describe_run, stored_tables

    if other:
        from infscale.report import beside

        if json:
            print(json_module.dumps({"rows": beside.compare_runs(run, other).to_dict("records")}, indent=1))
        else:
            print("\n".join(beside.describe_two(run, other)))
        return
    if not json:
        print("\n".join(describe_run(run)))
        return
    tables = stored_tables(load_run(run))
    found = {"arms": tables.arms, "contrasts": tables.contrasts}
    print(
        json_module.dumps(
            {name: json_module.loads(table.to_json(orient="records")) for name, table in found.items()}, indent=1
        )
    )


command = Command(
    "show",
    _run,
    [
        click.Argument(["run"], metavar="RUN", help="Folder of the run, absolute or from the project's root."),
        click.Argument(
            ["other"], metavar="[RUN2]", required=False, default="", help="A second run, to be shown beside it."
        ),
        option("--json", section="Output"),
    ],
    help="Say what a stored run is and what it found; of two runs, what each says of the same contrasts and arms. The "
    "tables of a complete run are kept in data/derived, so that the second time is quick.",
    examples=(
        "infscale show data/sample/2026-11-26T184202-quick",
        "infscale show data/sample/2026-11-26T184202-quick --json",
        "infscale show data/sample/2026-11-26T184202-quick data/sample/2026-11-26T184202-quick",
    ),
)
