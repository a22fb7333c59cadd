"""Results of findings: what a finding's run says, as a file that any report takes in."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from infscale.analysis.tables import Tables
from infscale.errors import DataError
from infscale.experiment.design.design import TOOLS
from infscale.machine import Machine
from infscale.paths import in_project
from infscale.records.manifest import RunManifest
from infscale.records.runs import Run
from infscale.report.claims import Claim, claims, headline
from infscale.report.figures.files import Drawn, save_picture, write
from infscale.report.figures.picture import Picture
from infscale.report.limits import limits


class Reported(Protocol):
    """What a report must know of a finding (:class:`infscale.findings.finding.Finding` is one)."""

    @property
    def name(self) -> str:
        """The finding's name in file names and commands."""

    @property
    def question(self) -> str:
        """The question that it answers."""

    @property
    def pictures(self) -> Sequence[Picture]:
        """Its figures in the order of a report."""

    def lead(self, run: Run, tables: Tables, /) -> list[str]:
        """Return the sentences that are no contrast and yet the first that a reader looks for."""

    def answer(self, run: Run, tables: Tables, /) -> list[str]:
        """Return the sentences that answer the question."""


class FindingResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run says on one question: the content of ``finding-<name>.json``.

    Attributes:
        name, question: of the finding.
        lead: the answer in a few sentences: what is no contrast, then the named contrasts together.
        sentences: the answer in full.
        claims: its named contrasts.
        figures: those that were drawn, in order.
        limits: what the run cannot show.
        left_out: labels of the arms that could not be measured.
        machine: where it was measured, and how fast that machine was, in words.
        speed: additions in a Python loop, a second; None where it was not measured.
        anchors_ms: median response time of the anchor (:mod:`infscale.experiment.beside.anchor`) in each session that
            has it.
        run_id, commit, environment_digest, profile: where it comes from.
    """

    name: str
    question: str
    lead: list[str]
    sentences: list[str]
    claims: list[Claim]
    figures: list[Drawn]
    limits: list[str]
    left_out: list[str]
    machine: str
    speed: float | None
    anchors_ms: list[float]
    run_id: str
    commit: str
    environment_digest: str
    profile: str


def save(finding: Reported, run: Run, tables: Tables, folder: Path) -> FindingResult:
    """Draw a finding's pictures of a run, and write them and ``finding-<name>.json`` to ``folder``.

    The folder may be given from the project's root.
    """
    folder = in_project(folder)
    drawn = [
        save_picture(picture, run, part, folder)
        for pictures, part in loops_apart(finding, tables)
        for picture in pictures
    ]
    result = result_of(finding, run, tables, [figure for figure in drawn if figure])
    text = msgspec.json.format(msgspec.json.encode(result), indent=1).decode()
    write(result_file(folder, finding.name), text + "\n")
    return result


def result_of(finding: Reported, run: Run, tables: Tables, figures: Sequence[Drawn] = ()) -> FindingResult:
    """Return what a run says on a finding's question, with the figures that were drawn of it."""
    manifest, own = run.manifest, claims(run, tables)
    return FindingResult(
        name=finding.name,
        question=finding.question,
        lead=[*finding.lead(run, tables), *headline(own)],
        sentences=finding.answer(run, tables),
        claims=own,
        figures=list(figures),
        limits=limits(run, tables),
        left_out=[run.labels[arm] for arm in manifest.skipped],
        machine=machine_text(manifest.machine),
        speed=speed_of(manifest),
        anchors_ms=anchors_ms(manifest),
        run_id=manifest.run_id,
        commit=manifest.commit,
        environment_digest=manifest.environment_digest,
        profile=manifest.design.profile,
    )


def loops_apart(finding: Reported, tables: Tables) -> list[tuple[list[Picture], Tables]]:
    """Return a finding's pictures with the tables that they are drawn from.

    Open and closed loops share no axis: where a run has both, each picture is drawn of either, that of the closed ones
    with "closed" in its name. The finding that compares load tools shows them together, and says so.
    """
    pictures, closed = list(finding.pictures), tables.summary["closed"].astype(bool)
    if finding.name == TOOLS or closed.all() or not closed.any():
        return [(pictures, tables)]
    named = [dataclasses.replace(one, name="-".join(filter(None, (one.name, "closed")))) for one in pictures]
    return [(pictures, tables.of_loop(closed=False)), (named, tables.of_loop(closed=True))]


def machine_text(machine: Machine) -> str:
    """Return a machine in a few words: "AMD EPYC, 2 cores, 23.5 GiB (L1d 32K, L2 512K)"."""
    if not machine.cores:  # of another tool's run, which does not describe it
        return machine.cpu
    caches = f" ({machine.caches})" if machine.caches else ""
    return f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:.3g} GiB{caches}"


def speed_of(manifest: RunManifest) -> float | None:
    """Return the speed of a run's machine by the mean of its calibrations; None where there is none."""
    speeds = [session.calibration.python for session in manifest.sessions if session.calibration]
    return sum(speeds) / len(speeds) if speeds else None


def anchors_ms(manifest: RunManifest) -> list[float]:
    """Return the median response time of the anchor in each session that measured it, ms."""
    return [session.anchor.response_p50_ms for session in manifest.sessions if session.anchor]


def result_file(folder: Path, finding: str) -> Path:
    """Return the path of a finding's result in a folder of figures."""
    return folder / f"finding-{finding}.json"


def load_all(folder: Path, order: Sequence[str] = ()) -> list[FindingResult]:
    """Return the results of all findings in a folder of figures: those named in ``order`` first, then by name."""
    results = [load(path) for path in sorted(folder.glob("finding-*.json"))]
    places = {name: place for place, name in enumerate(order)}
    return sorted(results, key=lambda result: places.get(result.name, len(places)))


def load(path: Path) -> FindingResult:
    """Read what :func:`save` wrote.

    Raises:
        DataError: the file is absent or damaged; the message names it and the field.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=FindingResult)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
