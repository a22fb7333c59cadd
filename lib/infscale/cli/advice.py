"""``infscale advice``: from stored trials, what to deploy for a payload, an arrival rate and a limit."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from infscale.cli.options import Command, Milliseconds, Number, option

if TYPE_CHECKING:
    from infscale.cli import printed


def _run(
    payload: str, rate: float, slo: float, quantile: str, repeat: float, data: str, details: bool, json: bool
) -> None:
    """Print the question and a line of advice for each choice, with ``details`` the reasons of every run below it.

    Raises:
        InfscaleError: an unknown payload or quantile, or no stored trial that carries the payload.
    """
    from infscale.analysis.tables import tabulate
    from infscale.cli import printed
    from infscale.findings import stored_runs
    from infscale.report import advice

    question = advice.Question(payload, rate, slo, repeat, quantile)
    evidence = [advice.evidence(run, tabulate(run)) for run in stored_runs(data)]
    lines = advice.advise(question, evidence)
    if json:
        printed.emit(printed.Advice(question=question.text, choices=[_choice(row) for row in lines.to_dict("records")]))
        return
    print(question.text)
    for row in lines.to_dict("records"):
        print(f"{row['choice']}: {row['advice']}{f' [{shown}]' if (shown := row['evidence']) else ''}")
        for reason in row["why"].splitlines() if details else []:
            print(f"    {reason}")


def _choice(row: "dict[Hashable, Any]") -> "printed.Choice":
    from infscale.cli import printed

    return printed.Choice(
        choice=row["choice"],
        advice=row["advice"],
        evidence=row["evidence"],
        why=row["why"].splitlines(),
        runs=list(filter(None, row["run_ids"].split(", "))),
    )


command = Command(
    "advice",
    _run,
    [
        option(
            "--payload",
            section="Question",
            default="row",
            metavar="NAME",
            note="One of row, rows, 'grey image', pixels, photograph.",
        ),
        option("--rate", section="Question", default="100", type=Number()),
        option("--slo", section="Question", default="20ms", type=Milliseconds()),
        option("--quantile", section="Question", default="p95"),
        option("--repeat", section="Question", default="0", type=Number()),
        option("--details", section="Output"),
        option("--json", section="Output"),
        option("--data", section="Folders", default="", note="Default: data/raw, then the committed sample."),
    ],
    help="Say which protocol, encoding, framework, number of replicas and cache the stored trials advise, a "
    "line for each choice with its evidence, or that they cannot decide and which run would.",
    examples=(
        "infscale advice --payload rows --rate 500 --slo 20ms",
        "infscale advice --data data/sample --slo 50ms --details",
        "infscale advice --data data/sample --rate 200 --json",
    ),
)
