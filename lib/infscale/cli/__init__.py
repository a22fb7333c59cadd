"""The command ``infscale``: what the Makefile calls, for use without make as well."""

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infscale.cli import compare_options, load_options, serve
from infscale.errors import InfscaleError
from infscale.experiment.design.profiles import from_parameters
from infscale.experiment.folder import folder_for
from infscale.records.manifest import read_json


def _end_with_parent() -> None:
    """Be ended when the process that started this one (make) is, be it by kill -9."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        sys.exit("infscale: the process that started this one has ended")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="infscale", description=__doc__)
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    paper = commands.add_parser("paper", help="measure, summarise, draw: every notebook of the study")
    paper.add_argument("--profile", default="quick", help="quick (default), full (overnight) or tiny (a smoke test)")
    paper.add_argument("--new", action="store_true", help="measure afresh instead of continuing or reusing a run")
    paper.add_argument("--frameworks", nargs="+", help="only these")
    paper.add_argument("--data", type=Path, help="folder of runs (default: data/raw)")
    figures = commands.add_parser("figures", help="draw again from stored data; needs no server")
    figures.add_argument("--run", default="", help="folder of a run (default: newest complete one, else the sample)")
    load_options.add_to(commands)
    finding = commands.add_parser("finding", help="measure one finding of the study, and draw it")
    finding.add_argument("name", metavar="NAME", help="encodings, hybrid, client-stacks, …; an unknown one lists them")
    finding.add_argument("--profile", default="quick", help="quick (default, at most ten minutes), full or tiny")
    finding.add_argument("--new", action="store_true", help="measure afresh instead of continuing or reusing a run")
    finding.add_argument("--data", type=Path, help="folder of runs (default: data/raw)")
    advice = commands.add_parser("advice", help="from stored trials: what to deploy for a payload, a rate and a limit")
    advice.add_argument("--payload", default="row", help="row (default), rows, grey image, pixels or photograph")
    advice.add_argument("--rate", type=float, default=100.0, help="arrival rate λ, requests/s (default: 100)")
    advice.add_argument("--slo-ms", type=float, default=20.0, help="limit of the response time, ms (default: 20)")
    advice.add_argument("--quantile", default="p95", help="of the response time: p50, p95 (default) or p99")
    advice.add_argument("--repeat", type=float, default=0.0, help="fraction of requests that repeat (default: 0)")
    advice.add_argument("--data", type=Path, help="folder of runs (default: data/raw, then data/sample)")
    compare_options.add_to(commands)
    serve.add_to(commands)
    plan = commands.add_parser("plan", help="what a profile would run, how long, and which differences it could find")
    plan.add_argument("--profile", default="quick", help="quick (default), full or tiny")
    plan.add_argument("--frameworks", nargs="+", help="only these")
    plan.add_argument("--replicates", type=int, help="instead of the profile's")
    plan.add_argument("--run", default="", help="earlier run whose spread is taken (default: as for figures)")
    plan.add_argument("--effect", type=float, default=1.1, help="ratio to be told apart from 1 (default: 1.1)")
    commands.add_parser("doctor", help="what this machine has, what that enables, and how to get what is missing")
    for command in (paper, figures, finding):
        command.add_argument("--figures", default="figures", help="folder to draw into (default: figures)")
    return parser


def paper(profile: str, *, new: bool, frameworks: Sequence[str] | None, data: Path | None, figures: str) -> Path:
    """Measure a profile's grid (or go on with an interrupted run of it) and draw; returns the run's folder."""
    from infscale.analysis import power
    from infscale.cli import notebooks as notebook
    from infscale.deployment.processes.pids import record_pids
    from infscale.experiment import sweep as experiment
    from infscale.experiment.design import grid

    plan = from_parameters(profile, frameworks=frameworks)
    print(power.plan(plan), flush=True)
    folder = experiment.folder_for(plan, (data or experiment.default_place()).resolve(), fresh=new)
    print(f"run: {folder}", flush=True)
    record_pids(folder / "pids.txt", {os.getpid(): "infscale paper", os.getppid(): "its parent"})
    parameters = {"profile": profile, "run": str(folder), **({"frameworks": list(frameworks)} if frameworks else {})}
    notebook.execute(
        notebook.MEASURING,
        parameters,
        folder / "notebooks",
        progress=lambda: notebook.trials_bar(folder, plan.expected_files()),
    )
    if profile == "full" and not frameworks:
        _measure_findings(new=new, data=data, figures=figures)
    draw(str(folder), figures, folder / "notebooks")
    return folder


def _measure_findings(**given: Any) -> None:
    """Every finding in full; one that this machine cannot measure is said, and does not end the study."""
    from infscale.findings import studies

    for name in studies.STUDIES:
        try:
            finding(name, "full", **given)
        except InfscaleError as error:
            print(f"infscale: finding {name}: {error}", file=sys.stderr)


def finding(name: str, profile: str, *, new: bool, data: Path | None, figures: str) -> Path:
    """Measure a finding (or go on with an interrupted run of it) and draw it; returns the run's folder."""
    from infscale.cli import notebooks as notebook
    from infscale.experiment import session
    from infscale.experiment import sweep as experiment
    from infscale.findings import studies
    from infscale.paths import project_root

    plan = studies.grid_of(name, profile)
    print(plan.time_plan(), flush=True)
    folder = folder_for(plan, (data or experiment.default_place()).resolve(), fresh=new)
    print(f"run: {folder}", flush=True)
    notebook.execute(
        studies.STUDIES[name].notebook,
        {"profile": profile, "run": str(folder), "figures_folder": figures},
        folder / "notebooks",
        progress=lambda: notebook.trials_bar(folder, plan.expected_files()),
    )
    told = json.loads((project_root() / figures / f"finding-{name}.json").read_text(encoding="utf-8"))
    print("\n".join(told["sentences"]))
    return folder


def _draw_findings(figures: str, runs_folder: Path, executed: Path) -> None:
    """Draw every finding again of which there is a complete run beside the one that is drawn."""
    from infscale.cli import notebooks as notebook
    from infscale.findings import studies
    from infscale.records import runs

    for name, study in studies.STUDIES.items():
        folder = runs.newest(runs_folder, name)
        if folder is None:
            continue
        profile = json.loads((folder / "run.json").read_text(encoding="utf-8"))["profile"]
        given = {"profile": profile, "run": str(folder), "figures_folder": figures}
        notebook.execute(study.notebook, given, executed)


def advice(words: argparse.Namespace) -> None:
    """Print what stored trials advise."""
    from infscale.report import advice as rules

    question = rules.Question(words.payload, words.rate, words.slo_ms, words.repeat, words.quantile)
    found = rules.advise(question, [rules.evidence(run) for run in rules.stored(words.data)])
    for row in found.to_dict("records"):
        source = f" [run {row['run_id']}: {row['cases']}]" if row["run_id"] else ""
        print(f"{row['choice']}: {row['advice']}\n    {row['why']}{source}")


def draw(run: str, figures: str, executed: Path | None = None) -> None:
    """Summarise a run and draw its figures, values and report."""
    from tqdm import tqdm

    from infscale.analysis.tables import summary
    from infscale.cli import notebooks as notebook
    from infscale.paths import project_root
    from infscale.records import runs, samples
    from infscale.report import sentences as findings

    folder = runs.find_run(run)
    target = executed or project_root() / "data" / "derived" / folder.name / "notebooks"
    for name in tqdm(notebook.DRAWING, unit="notebook", desc=f"drawing {folder.name}"):
        if name == "50-paper-values":
            _draw_findings(figures, folder.parent, target)
            given = {"payload": "", "runs_folder": str(folder.parent), "figures_folder": figures}
            notebook.execute("60-advice", given, target)
        takes_figures = {} if name == "30-summarise" else {"figures_folder": figures}
        notebook.execute(name, {"run": str(folder), **takes_figures}, target)
    run_id = read_json(folder / "run.json")["run_id"]
    print(findings.validity_finding(summary.load_tables(project_root() / "data" / "derived" / run_id)))
    print(f"figures, values.tex and report.html are in {project_root() / figures}")


def _load(words: argparse.Namespace) -> int:
    from infscale.load import single as load

    return load.main(words)


def _compare(words: argparse.Namespace) -> int:
    from infscale.cli import compare

    return compare.main(words)


def _plan(words: argparse.Namespace) -> None:
    from infscale.analysis import power
    from infscale.experiment.design import grid

    chosen = from_parameters(words.profile, frameworks=words.frameworks, replicates=words.replicates)
    print(power.plan(chosen, words.run, words.effect))


def _doctor(_: argparse.Namespace) -> int:
    from infscale.cli import doctor

    return doctor.main()


COMMANDS: dict[str, Callable[[argparse.Namespace], object]] = {
    "paper": lambda words: paper(
        words.profile, new=words.new, frameworks=words.frameworks, data=words.data, figures=words.figures
    ),
    "finding": lambda words: finding(words.name, words.profile, new=words.new, data=words.data, figures=words.figures),
    "figures": lambda words: draw(words.run, words.figures),
    "advice": advice,
    "load": _load,
    "compare": _compare,
    "plan": _plan,
    "serve": serve.main,
    "doctor": _doctor,
}
"""What each command does; an integer that it returns is its exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a known error is one message and exit code 1, Ctrl-C is 130."""
    arguments = _parser().parse_args(argv)
    if arguments.end_with_parent:
        _end_with_parent()
    try:
        code = COMMANDS[arguments.command](arguments)
    except InfscaleError as error:
        print(f"infscale: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output (head, less) has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except KeyboardInterrupt:
        kept = "; finished trials are kept, the same command continues"
        print(f"\ninfscale: interrupted{kept if arguments.command in ('paper', 'finding') else ''}", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0
