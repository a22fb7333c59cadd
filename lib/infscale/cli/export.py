"""``infscale export``: a stored run as OpenMetrics text."""

from infscale.cli.options import Argument, Command, option


def _run(run: str, timestamps: bool) -> None:
    """Print a run in the text format of OpenMetrics.

    Raises:
        InfscaleError: the folder is no run, or nothing of it can be tabulated.
    """
    from infscale.cli import openmetrics
    from infscale.records.runs import load_run
    from infscale.report.listing import stored_tables

    stored = load_run(run)
    print(openmetrics.text(stored, stored_tables(stored), timestamps=timestamps), end="")


command = Command(
    "export",
    _run,
    [
        Argument(["run"], metavar="RUN", help="Folder of the run, absolute or from the project's root."),
        option("--timestamps", section="Output"),
    ],
    help="Print a stored run as OpenMetrics text: response and round-trip times as histograms in seconds by arm, "
    "arrival rate and verdict, requests by status, trials by verdict, saturation rates and contrasts.",
    notes="Without --timestamps it is for a file that node_exporter's textfile collector or a push gateway takes; with "
    "them for 'promtool tsdb create-blocks-from openmetrics'. It needs the package prometheus_client.",
    examples=(
        "infscale export data/sample/2026-11-26T173006-quick",
        "infscale export data/sample/2026-11-26T173006-quick --timestamps",
    ),
)
