"""Results of findings: what a finding's run says, as a file that any report takes in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from infscale.analysis.tables import Tables
from infscale.errors import DataError
from infscale.records.runs import Run
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

    def answer(self, run: Run, tables: Tables, /) -> list[str]:
        """Return the sentences that answer the question."""


class FindingResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run says on one question: the content of ``finding-<name>.json``.

    Attributes:
        name, question: of the finding.
        sentences: the answer.
        figures: those that were drawn, in order.
        limits: what the run cannot show.
        left_out: labels of the arms that could not be measured.
        run_id, commit, environment_digest, profile: where it comes from.
    """

    name: str
    question: str
    sentences: list[str]
    figures: list[Drawn]
    limits: list[str]
    left_out: list[str]
    run_id: str
    commit: str
    environment_digest: str
    profile: str


def save(finding: Reported, run: Run, tables: Tables, folder: Path) -> FindingResult:
    """Draw a finding's pictures of a run, and write them and ``finding-<name>.json`` to ``folder``."""
    manifest = run.manifest
    drawn = [save_picture(picture, run, tables, folder) for picture in finding.pictures]
    result = FindingResult(
        name=finding.name,
        question=finding.question,
        sentences=finding.answer(run, tables),
        figures=[figure for figure in drawn if figure],
        limits=limits(run, tables),
        left_out=[run.labels[arm] for arm in manifest.skipped],
        run_id=manifest.run_id,
        commit=manifest.commit,
        environment_digest=manifest.environment_digest,
        profile=manifest.design.profile,
    )
    text = msgspec.json.format(msgspec.json.encode(result), indent=1).decode()
    write(result_file(folder, finding.name), text + "\n")
    return result


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
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: {error}") from error
