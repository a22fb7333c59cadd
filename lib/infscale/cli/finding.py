"""``infscale finding``: measure one finding of the study and draw it."""

from pathlib import Path

from infscale.cli.options import Argument, Command, Duration, cluster_options, option
from infscale.errors import ConfigError, DataError, one_of


def finding(
    name: str,
    profile: str,
    *,
    budget_s: float | None = None,
    slo: str | None = None,
    more_s: float = 0.0,
    new: bool = False,
    data: Path | None = None,
    figures: str = "figures",
    cluster: str = "",
    workers: int | None = None,
) -> Path:
    """Measure a finding, or go on with an interrupted run of it, draw it, and print what it found.

    Args:
        name: such as "encodings".
        profile: "quick", "full" or "tiny".
        budget_s: time for measuring, s; None takes the profile's.
        slo: a percentile and its limit, such as "p99<50ms", whose highest rate is searched, too; None takes the
            finding's own, if it has one.
        more_s: time to be added to the newest complete run, s.
        new: measure afresh.
        data: folder of runs, from the project's root; None for data/raw.
        figures: folder to draw into, from the project's root.
        cluster, workers: the workers that make the load, as of :func:`infscale.experiment.measure.measure`.

    Returns:
        The run's folder.

    Raises:
        InfscaleError: an unknown finding or profile, a folder that cannot be written, or a notebook that failed.
    """
    from infscale.cli import notebooks
    from infscale.experiment.check import check
    from infscale.experiment.design.time_plan import check_budget, time_plan
    from infscale.experiment.folder import folder_for
    from infscale.experiment.measure import asked
    from infscale.findings import FINDINGS
    from infscale.paths import in_project
    from infscale.records.manifest import RunManifest, read
    from infscale.report.results import load, result_file

    one_of("finding", name, FINDINGS)
    if more_s and slo:
        raise ConfigError(
            f"slo={slo!r} with more_s={more_s:g}: a run that goes on keeps its design; accepted: one of them"
        )
    if more_s and cluster:
        raise ConfigError(f"cluster={cluster!r} with more_s={more_s:g}: a run that goes on keeps its cluster")
    design = FINDINGS[name].design(profile, budget_s=budget_s, slo=slo)
    place = in_project(data or "data/raw")
    if more_s:
        folder = to_continue(place, name)
    else:
        check(design)
        check_budget(design)
        print(time_plan(design), flush=True)
        folder = folder_for(design, place, fresh=new, cluster=asked(cluster, workers, design))
    print(f"run: {folder}", flush=True)
    notebooks.execute(
        FINDINGS[name].notebook,
        {
            "profile": read(folder / "run.json", RunManifest).design.profile,
            "run": str(folder),
            "more_s": more_s,
            "figures_folder": figures,
        },
        folder / "notebooks",
        progress=lambda: notebooks.budget_bar(folder, more_s),
    )
    print("\n".join(load(result_file(in_project(figures), name)).sentences))
    return folder


def to_continue(place: Path, finding: str = "") -> Path:
    """Return the newest complete run of a finding (default: F0) below ``place``, which this process may go on with.

    Raises:
        DataError: there is none, or it was measured by another machine or other code.
    """
    from infscale.experiment.folder import check_same
    from infscale.records.manifest import RunManifest, read
    from infscale.records.runs import HEADLINE, newest

    folder = newest(place, finding or HEADLINE)
    if folder is None:
        raise DataError(f"no complete run of {finding or HEADLINE} in {place}: there is nothing to add time to")
    check_same(read(folder / "run.json", RunManifest))
    return folder


def _run(
    name: str,
    profile: str,
    budget: float | None,
    slo: str,
    more: float | None,
    new: bool,
    data: str,
    figures: str,
    cluster: str,
    workers: int | None,
    json: bool,
) -> None:
    folder = finding(
        name,
        profile,
        budget_s=budget,
        slo=slo or None,
        more_s=more or 0.0,
        new=new,
        data=Path(data) if data else None,
        figures=figures,
        cluster=cluster,
        workers=workers,
    )
    if json:
        from infscale.cli.figures import emit_result

        emit_result(folder, figures)


command = Command(
    "finding",
    _run,
    [
        Argument(["name"], help="Such as encodings, hybrid or caching; an unknown name lists them all."),
        option("--profile", section="Measurement", default="quick"),
        option("--budget", section="Measurement", type=Duration(), note="Default: the profile's."),
        option(
            "--slo",
            section="Measurement",
            default="",
            metavar="'pNN<TIME'",
            note="With its percentile, as in 'p99<50ms': the highest rate that keeps it is searched, too.",
        ),
        option("--more", section="Measurement", type=Duration()),
        option("--new", section="Measurement"),
        *cluster_options(),
        option("--data", section="Folders", note="Default: data/raw."),
        option("--figures", section="Folders", default="figures"),
        option("--json", section="Output"),
    ],
    help="Measure one finding of the study (ten minutes as a quick run, fifteen for planning), draw it and print "
    "its answer. An interrupted run is continued, a complete one is reused.",
    examples=("infscale finding encodings", "infscale finding hybrid --profile tiny --new"),
)
