"""``infscale merge``: runs of one design that several machines have measured, in one table."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from infscale.cli.options import Argument, Command, option

if TYPE_CHECKING:
    from infscale.analysis.merging.machines import Source


def _run(runs: tuple[str, ...], json: bool, figures: str) -> None:
    """Print what every machine says of each contrast, and all together.

    Raises:
        InfscaleError: runs that cannot be read, are not of one design, or are of one machine.
    """
    from infscale.analysis.merging.machines import merge
    from infscale.cli import printed
    from infscale.report import merged

    sources = read(runs)
    found = merge(sources)
    if json:
        table = merged.named(found, sources[0].run)
        printed.emit(printed.MergedRuns(contrasts=printed.rows(table, printed.MergedContrast)))
    else:
        print(merged.text(sources, found))
    if figures:
        paths = merged.save(sources, found, figures)
        click.echo(f"written: {', '.join(map(str, paths))}", err=json)


def read(places: Sequence[str]) -> "list[Source]":
    """Return runs with the names of their machines.

    Args:
        places: folders of runs, each alone or as NAME=FOLDER. Without a name a machine is called by its processor and
            cores, and by its run where these are those of another, too.

    Raises:
        InfscaleError: a folder is no run, or its records are damaged.
    """
    from infscale.analysis.merging.machines import Source
    from infscale.paths import in_project
    from infscale.records.runs import load_run

    sources = []
    for place in places:
        name, told, folder = ("", "", place) if in_project(place).is_dir() else place.partition("=")
        run = load_run(folder if told else place)
        machine = run.manifest.machine
        sources.append(Source(name or f"{_short(machine.cpu)}, {machine.cores} cores", run, bool(name)))
    counts = Counter(source.machine for source in sources)
    return [
        source
        if source.told or counts[source.machine] == 1
        else Source(f"{source.machine} ({source.run.id})", source.run)
        for source in sources
    ]


def _short(cpu: str) -> str:
    """Return a processor's name without what says nothing: "Intel Xeon" for "Intel(R) Xeon(R) Processor"."""
    words = cpu.replace("(R)", "").replace("(TM)", "").split()
    return " ".join(word for word in words if word not in ("CPU", "Processor"))


command = Command(
    "merge",
    _run,
    [
        Argument(
            ["runs"],
            nargs=-1,
            required=True,
            metavar="[NAME=]RUN...",
            help="Folders of runs, each with a name of its machine or without.",
        ),
        option("--json", section="Output"),
        option("--figures", section="Output", default="", note="Also takes the table, as CSV."),
    ],
    help="Put the runs of one design that several machines have measured in one table, with the machine as a factor: "
    "each contrast by machine, and from three machines on also pooled, as a random effect.",
    notes="Runs of other arms, settings, servers or measuring code are refused, and so are two runs of one machine. "
    "NAME= names a machine; two machines that are alike need it.",
    examples=(
        "infscale merge data/raw/RUN-A data/raw/RUN-B data/raw/RUN-C --figures figures",
        "infscale merge lab=RUN-A cloud=RUN-B laptop=RUN-C --json",
    ),
)
