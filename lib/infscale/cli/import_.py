"""``infscale import``: result files of guidellm or k6 as a run of this project, and what can be judged of them."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from infscale.cli.options import Argument, Command, option

if TYPE_CHECKING:
    import pandas as pd

    from infscale.cli import printed
    from infscale.records.runs import Run

STARTS = {
    "guidellm": "from the time at which guidellm's schedule had the request",
    "guidellm-users": "from the time at which a user was ready to send: while it waited, nothing was asked for",
    "k6": "from the time at which a connection was asked for: k6's file does not say when the request was scheduled",
}
"""Client → from when response times count."""

NOTES = """\
A file is a lifetime: with --against the k-th file is compared with the k-th file there, from four of each on, by the \
p95 of the response time at the rates that all have. Files from one start of a server are no replications: start it \
anew for each. λ* is not searched by these tools, and stays a bound.

guidellm: --output kind=json of version 0.8 (report version 2), with all requests. k6: --out json=FILE, also .gz; HTTP \
requests. A percentile has its interval within the trial, by as many independent requests as it is worth.

The verdict is that of the gates that the file lets us judge; the others are named, with the reason. It claims no more.
"""


def _run(tool: str, files: tuple[str, ...], against: tuple[str, ...], data: str, json: bool) -> None:
    """Import files, and print what they show.

    Raises:
        InfscaleError: a file cannot be read, or is none of the tool's; or the folder cannot be written.
    """
    from infscale.analysis.tables.contrasts import contrasts_table
    from infscale.analysis.tables.trials import trials_table
    from infscale.cli import printed
    from infscale.paths import in_project
    from infscale.records.imported.run import store
    from infscale.records.runs import load_run

    sides = [against, files] if against else [files]
    folder = store(tool, [[Path(file) for file in side] for side in sides], in_project(data))
    run = load_run(folder)
    trials = trials_table(run)
    contrasts = contrasts_table(run.manifest, trials)
    if json:
        found = printed.rows(contrasts, printed.ShownContrast)
        result = printed.Imported(
            run=str(folder), trials=_trials(run, trials), unjudged=_unjudged(run), contrasts=found
        )
        printed.emit(result)
    else:
        print("\n".join([f"run: {folder}", *_lines(run, trials), *_contrast_lines(run, contrasts)]))


def _trials(run: "Run", trials: "pd.DataFrame") -> "list[printed.ImportedTrial]":
    from infscale.cli import printed

    stored = {trial.manifest.trial_id: trial.manifest for trial in run.trials}
    quantiles = ("p50", "p95", "p99")
    return [
        printed.ImportedTrial(
            trial_id=row["trial_id"],
            label=row["label"],
            client=row["client"],
            lifetime=row["lifetime"],
            rate_per_s=row["rate_per_s"],
            requests=row["scheduled"],
            left_out=said.left_out if (said := stored[row["trial_id"]].generator.reported) else 0,
            failed=row["failed"],
            verdict=row["verdict"],
            verdict_text=stored[row["trial_id"]].judged.text,
            response_time_from=STARTS[row["client"]],
            **{f"response_{name}_ms": row[f"response_{name}_ms"] for name in quantiles},
            **{f"response_{name}_low_ms": row[f"response_{name}_ms_in_low"] for name in quantiles},
            **{f"response_{name}_high_ms": row[f"response_{name}_ms_in_high"] for name in quantiles},
        )
        for row in trials.to_dict("records")
    ]


def _unjudged(run: "Run") -> "list[printed.Unjudged]":
    """Return the gates that cannot be judged, and why, by client."""
    from infscale.cli import printed
    from infscale.records.gates.imported import OF_CLIENT

    clients = dict.fromkeys(trial.manifest.generator.client for trial in run.trials)
    return [
        printed.Unjudged(client=client, gate=gate, why=why)
        for client in clients
        for gate, why in OF_CLIENT[client].items()
    ]


def _lines(run: "Run", trials: "pd.DataFrame") -> list[str]:
    judged = {trial.manifest.trial_id: trial.manifest.judged for trial in run.trials}
    deciding = {name: [gate.text for gate in one.gates if gate.name in one.reasons] for name, one in judged.items()}
    lines = []
    for one in _trials(run, trials):
        times = ", ".join(
            f"{name} {_time(one, name)}"
            for name in ("p50", "p95", "p99")
            if _known(getattr(one, f"response_{name}_ms"))
        )
        left_out = f", {one.left_out:,} left out (in flight at the end, or later)" if one.left_out else ""
        rate = f"{one.rate_per_s:g}/s" if one.client == "guidellm" else f"about {one.rate_per_s:g}/s answered"
        lines += [
            f"{one.label}, {rate}, lifetime {one.lifetime}: {one.requests:,} requests, {one.failed:,} failed{left_out}",
            f"  response time, ms: {times or 'unknown: it did not become steady, or nothing succeeded'}",
            f"  {'; '.join([f'{one.verdict}, imported', *deciding[one.trial_id]])}",
        ]
    clients = dict.fromkeys(trials["client"])
    lines += [f"Response times of {client} count {STARTS[client]}." for client in clients]
    said = _unjudged(run)
    for client in clients:
        own = {
            one.why: [other.gate for other in said if (other.client, other.why) == (client, one.why)] for one in said
        }
        lines.append(f"Not judged of {client}, so that the verdict is that of the other gates, and claims no more:")
        lines += [f"  {', '.join(gates)}: {why}" for why, gates in own.items() if gates]
    return lines


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _time(one: "printed.ImportedTrial", name: str) -> str:
    from infscale.vocabulary import number

    value, low, high = (getattr(one, f"response_{name}{end}_ms") for end in ("", "_low", "_high"))
    interval = f" [{number(low)}, {number(high)}]" if _known(low) and _known(high) else " (no interval)"
    return f"{number(value)}{interval}"


def _contrast_lines(run: "Run", contrasts: "pd.DataFrame") -> list[str]:
    from infscale.records.imported.run import LEAST
    from infscale.report.wording import contrast_text

    few = len(run.manifest.lifetimes) < LEAST
    note = [f"Below {LEAST} files of each side there is no interval."] if few and len(contrasts) else []
    return [*(contrast_text(row) for _, row in contrasts.iterrows()), *note]


command = Command(
    "import",
    _run,
    [
        Argument(["tool"], help="guidellm or k6."),
        Argument(["files"], nargs=-1, required=True, metavar="FILE...", help="Its result files; a file is a lifetime."),
        option("--against", section="Comparison"),
        option("--data", section="Folders", default="data/imported"),
        option("--json", section="Output"),
    ],
    help="Read result files of another load tool into a run, and judge it as far as the files allow: verdicts, "
    "percentiles with intervals, and a contrast with other files. The run can be shown, exported and compared.",
    notes=NOTES,
    examples=(
        "infscale import guidellm benchmarks.json",
        "infscale import k6 points.json --json",
        "infscale import k6 new-1.json new-2.json new-3.json new-4.json --against old-1.json old-2.json old-3.json \\\n"
        "      old-4.json",
    ),
)
