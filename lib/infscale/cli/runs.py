"""``infscale runs``: the stored runs, a line each."""

from infscale.cli.options import Command, option


def _run(data: str, json: bool) -> None:
    """Print a table of runs, the newest first.

    Without a folder they are those of data/raw, and then those of the committed sample.
    """
    import pandas as pd

    from infscale.cli import printed
    from infscale.report.listing import runs_table

    places = [data] if data else ["data/raw", "data/sample"]
    table = pd.concat([runs_table(place).assign(folder=place) for place in places], ignore_index=True)
    if json:
        printed.emit(printed.Runs(runs=printed.rows(table, printed.ListedRun)))
    elif table.empty:
        print(f"no runs in {' or '.join(places)}; 'infscale paper' or 'infscale finding NAME' measures one")
    else:
        shown = table.assign(run=table["folder"] + "/" + table["run"]).drop(columns="folder")
        for name in ("run", "finding", "machine", "status"):
            shown[name] = shown[name].str.ljust(int(shown[name].str.len().max()))
        print(shown.rename(columns={"measured_min": "min"}).to_string(index=False))
        if (table["decided"] == "").any():
            print("decided: of its named contrasts, where the run was shown or drawn; 'infscale show RUN' computes it")


command = Command(
    "runs",
    _run,
    [
        option("--data", section="Folders", default="", note="Default: data/raw and data/sample."),
        option("--json", section="Output"),
    ],
    help="List the stored runs, the newest first: what was measured, when, on which machine, whether it is complete, "
    "how many trials it has, and how many of the contrasts that it named beforehand are decided.",
    examples=("infscale runs", "infscale runs --data data/sample --json"),
)
