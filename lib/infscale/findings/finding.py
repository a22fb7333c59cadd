"""Findings: a question with the arms that answer it, its answer in sentences, and its pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import msgspec
import numpy as np
import pandas as pd

from infscale.analysis.tables import Tables
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Contrast, Design, metrics_of
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.picture import Picture
from infscale.report.wording import capacity_text, contrast_text, saturation_text, with_interval
from infscale.vocabulary import number

Blocks = Sequence[Sequence[Arm]]
"""Arms by block. The arms of a block get the same arrivals and are compared with one of them."""


class Sizes(TypedDict, total=False):
    """How much of a design is measured; see :class:`infscale.experiment.design.design.Design`. None keeps a default."""

    budget_s: float | None
    least: int | None
    most: int | None
    trial_s: float | None
    requests: int | None
    curve: int | None
    timeout_s: float | None
    seed: int | None
    most_per_s: float | None
    slo: str | None


SIZES: dict[str, Sizes] = {
    "tiny": {"budget_s": 600.0, "least": 1, "most": 1, "trial_s": 0.5, "requests": 50},
    "quick": {"budget_s": 600.0},
    "full": {"budget_s": 7200.0, "trial_s": 2.0, "requests": 500, "timeout_s": 5.0},
}
"""The sizes of a finding by profile."""


def compared(run: Run, tables: Tables) -> list[str]:
    """Return sentences for each arm in the order of the design: how it compares with its reference, and its bytes.

    An arm that is compared with no other gets its saturation rate and its bytes.
    """
    arms = {int(row["arm"]): row for _, row in tables.summary.iterrows()}
    contrasts: dict[int, list[pd.Series[Any]]] = {}
    for _, row in tables.contrasts.iterrows():
        contrasts.setdefault(int(row["arm"]), []).append(row)
    slo = run.manifest.design.slo
    return [_sentence(row, arms, contrasts.get(arm, []), slo) for arm, row in arms.items()]


def _sentence(
    arm: "pd.Series[Any]", arms: "Mapping[int, pd.Series[Any]]", contrasts: "Sequence[pd.Series[Any]]", slo: str | None
) -> str:
    said = "; ".join(contrast_text(row, "it") for row in contrasts)
    said = f"{said}. Its" if said else "its"
    reference = arms.get(int(contrasts[0]["reference"])) if contrasts else None
    share = ""
    if reference is not None and np.isfinite([arm["bytes_out"], reference["bytes_out"]]).all():
        share = f" ({number(arm['bytes_out'] / reference['bytes_out'])} times as many as the reference's)"
    return (
        f"{arm['label']}: {said} saturation rate λ* {saturation_text(arm)}{_at_slo(arm, slo)}. A request has "
        f"{_bytes(arm['bytes_out'])}{share}, an answer {_bytes(arm['bytes_in'])}."
    )


def _at_slo(arm: "pd.Series[Any]", slo: str | None) -> str:
    if slo is None or arm["closed"] or "capacity_per_s" not in arm:
        return ""
    return f", its rate at {slo} {capacity_text(arm)}"


def _bytes(count: float) -> str:
    return f"{number(count)} bytes" if np.isfinite(count) else "an unknown number of bytes"


@dataclass(frozen=True)
class Finding:
    """A question, and how it is measured, answered and shown.

    Attributes:
        name: in file names, commands and runs.
        question: in words, for the report.
        blocks: the arms by block, or a function that returns them for a profile.
        answer: returns the answer in full, in sentences, from a run and its tables.
        lead: returns those of its sentences that are no contrast and yet the first that a reader looks for.
        pictures: the figures of the report, in order.
        notebook: the notebook that measures and shows it, of the project's own findings.
        sizes: sizes that differ from :data:`SIZES`, by profile.
        beside: what is measured once beside trials ("staleness").
        reference: the place in each block of the arm that the others are compared with.
        sensitivity: arms of the sensitivity check, or a function that returns them for a profile.
    """

    name: str
    question: str
    blocks: Callable[[str], Blocks] | Blocks
    answer: Callable[[Run, Tables], list[str]] = compared
    lead: Callable[[Run, Tables], list[str]] = lambda run, tables: []
    pictures: Sequence[Picture] = (SUMMARY,)
    notebook: str = ""
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    reference: int = 0
    sensitivity: Callable[[str], Sequence[Arm]] | Sequence[Arm] = ()

    def design(self, profile: str = "quick", **sizes: Unpack[Sizes]) -> Design:
        """Return what is measured for a profile: "tiny", "quick" or "full".

        Args:
            profile: decides about arms and sizes.
            sizes: values in place of the profile's; None keeps the profile's.

        Raises:
            ConfigError: an unknown profile, blocks that are no lists of arms, or a size that a design cannot have.
        """
        one_of("profile", profile, SIZES)
        blocks = self.blocks(profile) if callable(self.blocks) else self.blocks
        sensitivity = self.sensitivity(profile) if callable(self.sensitivity) else self.sensitivity
        chosen = {**SIZES[profile], **self.sizes.get(profile, {})}
        chosen |= {name: value for name, value in sizes.items() if value is not None}
        arms, contrasts = _numbered(blocks, self.reference, slo="slo" in chosen)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
        design = Design(
            finding=self.name,
            question=self.question,
            arms=arms,
            sensitivity=tuple(sensitivity),
            beside=self.beside,
            anchor=profile != "tiny",
            profile=profile,
        )
        return msgspec.structs.replace(design, contrasts=contrasts, **values)


def _numbered(blocks: Blocks, reference: int, *, slo: bool) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
    """Return the arms of all blocks, and the contrasts of each arm with its block's reference, by every metric."""
    if not isinstance(blocks, Sequence) or not all(isinstance(block, Sequence) for block in blocks):
        raise ConfigError("blocks: accepted: a list of blocks, each a list of arms, as in [[Arm(…), Arm(…)]]")
    arms: list[Arm] = []
    contrasts: list[Contrast] = []
    for block in blocks:
        start, compared_with = len(arms), min(reference, len(block) - 1)
        arms += block
        others = [place for place in range(len(block)) if place != compared_with]
        contrasts += [
            Contrast(start + place, start + compared_with, metric)
            for place in others
            for metric in metrics_of(block[place], block[compared_with], slo=slo)
        ]
    return tuple(arms), tuple(contrasts)


def counterpart(run: Run, arm: int, **levels: object) -> int | None:
    """Return the measured arm that differs from ``arm`` in these factors alone; None where it was not measured.

    Args:
        run: the stored run.
        arm: the number of an arm.
        levels: factors and their levels in the arm that is looked for.

    Raises:
        ConfigError: a level that no arm can have.
        TypeError: a factor that there is not.
    """
    arms = run.manifest.design.arms
    wanted = msgspec.structs.replace(arms[arm], **levels)
    return next((number for number in run.measured if arms[number] == wanted), None)


def measured(tables: Tables, name: str, arm: int) -> str:
    """Return a number of the summary with its interval, where there is one: "514 [480, 550]"."""
    value, low, high = (column(tables, f"{name}{end}").get(arm, float("nan")) for end in ("", "_low", "_high"))
    return with_interval(value, low, high)


def column(tables: Tables, name: str) -> dict[int, float]:
    """Return a column of the summary by arm; NaN where nothing of that name was measured in the run."""
    if name not in tables.summary:
        return dict.fromkeys((int(arm) for arm in tables.summary["arm"]), float("nan"))
    return {int(arm): float(value) for arm, value in zip(tables.summary["arm"], tables.summary[name], strict=True)}
