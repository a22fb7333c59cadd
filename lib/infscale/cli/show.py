"""``infscale show``: what a stored run is, and what it found."""

from infscale.cli.options import Argument, Command, option


def _run(run: str, other: str, json: bool) -> None:
    """Print a run: its question, machine and trials, every λ*, and the answer to each named contrast; or two runs.

    Raises:
        InfscaleError: a folder is no run, or nothing of it can be tabulated.
    """
    from infscale.cli import printed
    from infscale.records.runs import load_run
    from infscale.report.listing import describe_run, stored_tables

    if other:
        from infscale.report import beside

        if json:
            printed.emit(printed.TwoRuns(rows=printed.rows(beside.compare_runs(run, other), printed.Beside)))
        else:
            print("\n".join(beside.describe_two(run, other)))
        return
    if not json:
        print("\n".join(describe_run(run)))
        return
    tables = stored_tables(load_run(run))
    arms, contrasts = (
        printed.rows(tables.arms, printed.ShownArm),
        printed.rows(tables.contrasts, printed.ShownContrast),
    )
    printed.emit(printed.ShownRun(arms=arms, contrasts=contrasts))


command = Command(
    "show",
    _run,
    [
        Argument(["run"], metavar="RUN", help="Folder of the run, absolute or from the project's root."),
        Argument(["other"], metavar="[RUN2]", required=False, default="", help="A second run, to be shown beside it."),
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
