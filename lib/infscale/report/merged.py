"""Runs of several machines as text, and as a table and a figure in files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from infscale.analysis.merging.machines import POOLED, Merged, OfMachine, Source, differing_packages, table
from infscale.analysis.merging.pooled import MIN_MACHINES, Pooled
from infscale.paths import in_project
from infscale.records.runs import Run
from infscale.report.claims import names
from infscale.report.figures import machines
from infscale.report.figures.files import rounded, save_files
from infscale.report.results import machine_text
from infscale.report.wording import metric_text, with_interval
from infscale.vocabulary import number

STEM = "merged"
"""Of the files that :func:`save` writes."""


def named(merged: Sequence[Merged], run: Run) -> pd.DataFrame:
    """Return the table of merged contrasts (:func:`infscale.analysis.merging.machines.table`) with their names.

    Args:
        merged: of runs of one design.
        run: any of them.
    """
    return table(merged, [contrast_text(one, run) for one in merged])


def contrast_text(one: Merged, run: Run) -> str:
    """Return the name of a contrast without its metric: "Triton: gRPC ÷ REST"."""
    called = names(run)[one.contrast.arm, one.contrast.reference]
    return f"{f'{called.subject}: ' if called.subject else ''}{called.arm} ÷ {called.reference}"


def text(sources: Sequence[Source], merged: Sequence[Merged]) -> str:
    """Return what runs of several machines say, as lines to be read in a terminal."""
    run = sources[0].run
    lines = [f"{len(sources)} machines, one design ({run.manifest.design.finding}), one run each:"]
    lines += [f"  {line}" for source in sources for line in _machine(source)]
    lines += [f"  packages that differ: {packages}" for packages in _packages(sources)]
    width = max(len(source.machine) for source in sources)
    for one in merged:
        lines += ["", f"{contrast_text(one, run)}, {metric_text(one.contrast.metric)}"]
        lines += [f"  {own.machine:{width}}  {_own(own)}" for own in one.machines]
        lines.append(f"  {POOLED:{width}}  {_pooled(one)}")
    return "\n".join([*lines, "", NOTE])


NOTE = """\
Each line has a plain 95 % interval, over the lifetimes of a machine or over machines; none is corrected for their
number. A pooled value is that of a random effect: each machine counts once, as one of all there might be."""
"""What the numbers mean."""


def _machine(source: Source) -> Iterator[str]:
    manifest = source.run.manifest
    yield f"{source.machine}: {machine_text(manifest.machine)}; {source.run.id}"
    fast = [session.calibration for session in manifest.sessions if session.calibration]
    if fast:
        parts = {
            name: sum(getattr(one, name) for one in fast) / len(fast)
            for name in ("python", "numpy", "calls", "loopback")
        }
        yield f"  calibration, operations/s: {', '.join(f'{name} {value:.3g}' for name, value in parts.items())}"


SHOWN = 5
"""Most packages that are named where versions differ."""


def _packages(sources: Sequence[Source]) -> Iterator[str]:
    """Yield one line on packages whose versions differ; none where all are alike."""
    differing = differing_packages(sources)
    if differing:
        shown = [f"{name} ({', '.join(own.values())})" for name, own in list(differing.items())[:SHOWN]]
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        yield f"{', '.join(shown)}{more}"


def _own(own: OfMachine) -> str:
    """Return what one machine says of a contrast."""
    found = own.estimate
    if not found.lifetimes:
        return found.why
    rates = f", at {' and '.join(number(rate) for rate in own.rates_per_s)} requests/s" if own.rates_per_s else ""
    said = f"; by itself: {own.answer}" if own.answer else ""
    left_out = f"; not pooled: {found.why}" if found.why else ""
    value = with_interval(found.ratio, found.low, found.high)
    return f"{value}, {found.lifetimes} lifetimes{rates}{said}{left_out}"


def _pooled(one: Merged) -> str:
    if one.pooled is None:
        can = sum(not own.estimate.why for own in one.machines)
        return f"none: {can} of at least {MIN_MACHINES} machines have an estimate that can be pooled"
    return pooled_text(one.pooled)


def pooled_text(both: Pooled) -> str:
    """Return a random effect in words."""
    return (
        f"{with_interval(both.ratio, both.low, both.high)} over {both.machines} machines, which differ by a factor of "
        f"{with_interval(both.between, both.between_low, both.between_high)}; one more machine would show "
        f"{number(both.next_low)} to {number(both.next_high)}"
    )


def save(sources: Sequence[Source], merged: Sequence[Merged], folder: Path | str) -> list[Path]:
    """Write the table as CSV, and the forest plot as PDF and PNG; return their paths.

    Args:
        sources, merged: runs, and what they say.
        folder: from the project's root.
    """
    shown = rounded(named(merged, sources[0].run))
    return save_files(machines.draw(shown), STEM, in_project(folder), shown)
