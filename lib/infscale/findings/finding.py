"""Findings: a question with the arms that answer it, its answer in sentences, and its pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import msgspec
import numpy as np
import pandas as pd

from infscale.analysis.tables import Tables
from infscale.errors import one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SEARCH, Contrast, Design
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.picture import Picture
from infscale.report.wording import interval_text, metric_text, saturation_text
from infscale.vocabulary import CANNOT, number

Blocks = Sequence[Sequence[Arm]]
"""Arms by block. The arms of a block get the same arrivals and are compared with one of them."""


class Sizes(TypedDict, total=False):
    """How much of a design is measured; see :class:`infscale.experiment.design.design.Design`. None keeps a default."""

    replicates: int | None
    trial_s: float | None
    fractions: Sequence[float] | None
    timeout_s: float | None
    seed: int | None
    fill_tail: bool | None
    restart: bool | None
    bisections: int | None
    most_per_s: float | None


SIZES: dict[str, Sizes] = {
    "tiny": {"replicates": 1, "trial_s": 0.5, "bisections": 1},
    "quick": {"replicates": 4, "trial_s": 1.25, "bisections": 3},
    "full": {"replicates": 6, "trial_s": 6.0, "bisections": 4, "timeout_s": 5.0},
}
"""The sizes of a finding that searches for saturation rates, by profile."""


def compared(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each arm in the order of the design: how it compares with its reference.

    An arm that is compared with no other gets its saturation rate and its bytes.
    """
    arms = {int(row["arm"]): row for _, row in tables.summary.iterrows()}
    contrasts = {(row["arm"], row["rate_per_s"]): row for _, row in tables.contrasts.iterrows()}
    sentences = []
    for arm, row in arms.items():
        contrast = contrasts.get((arm, row["rate_per_s"]))
        reference = arms.get(int(contrast["reference"])) if contrast is not None else None
        if contrast is None or reference is None:
            sentences.append(_alone(row))
        else:
            sentences.append(_against(contrast, row, reference))
    return sentences


def _alone(arm: "pd.Series[Any]") -> str:
    return (
        f"{arm['label']}: the saturation rate λ* {saturation_text(arm)}; a request has {_bytes(arm['bytes_out'])}, "
        f"an answer {_bytes(arm['bytes_in'])}."
    )


def _against(contrast: "pd.Series[Any]", arm: "pd.Series[Any]", reference: "pd.Series[Any]") -> str:
    times = number(arm["bytes_out"] / reference["bytes_out"])
    share = f" ({times} times as many)" if np.isfinite(arm["bytes_out"]) else ""
    return (
        f"{arm['label']}: {_response(contrast)}. Its saturation rate λ* {saturation_text(arm)}{_capacity(contrast)}. "
        f"A request has {_bytes(arm['bytes_out'])}{share}."
    )


def _response(contrast: "pd.Series[Any]") -> str:
    """Return how the response times of two arms compare."""
    conclusions = {"slower": "it is slower", "faster": "it is faster", CANNOT: f"{CANNOT} which is faster"}
    metric, reference = metric_text(contrast["metric"]), contrast["reference_label"]
    basis = f"{contrast['replicates']} replicates{', exploratory' if contrast['exploratory'] else ''}"
    if not np.isfinite(contrast["ratio"]):
        ratio = f"its {metric} cannot be compared with that of {reference} ({contrast['note']})"
    elif not np.isfinite(contrast["ratio_low"]):
        ratio = f"its {metric} is {number(contrast['ratio'])} times that of {reference} ({contrast['note']})"
    else:
        interval = interval_text(contrast["ratio_low"], contrast["ratio_high"])
        ratio = f"its {metric} is {number(contrast['ratio'])} times that of {reference} ({interval}, {basis})"
    undone = contrast["conclusion"] != contrast["interval_conclusion"]
    holm = f" (after Holm's correction p = {number(contrast['p_holm'])})" if undone else ""
    return f"at λ = {number(contrast['rate_per_s'])} requests/s {ratio}: {conclusions[contrast['conclusion']]}{holm}"


def _capacity(contrast: "pd.Series[Any]") -> str:
    """Return how the saturation rates of two arms compare, by the interval of their ratio; goes on with a sentence."""
    reference = contrast["reference_label"]
    if not np.isfinite(contrast["capacity_ratio_low"]):
        return f"; the trials do not decide whether it is higher or lower than that of {reference}"
    interval = interval_text(contrast["capacity_ratio_low"], contrast["capacity_ratio_high"])
    ratio = f", {number(contrast['capacity_ratio'])} times that of {reference} ({interval})"
    conclusion = contrast["capacity_conclusion"]
    return f"{ratio}: {f'{CANNOT} which is higher' if conclusion == CANNOT else f'it is {conclusion}'}"


def _bytes(count: float) -> str:
    return f"{number(count)} bytes" if np.isfinite(count) else "an unknown number of bytes"


@dataclass(frozen=True)
class Finding:
    """A question, and how it is measured, answered and shown.

    Attributes:
        name: in file names, commands and runs.
        question: in words, for the report.
        blocks: the arms by block, or a function that returns them for a profile.
        answer: returns the sentences of the report, from a run and its tables.
        pictures: the figures of the report, in order.
        notebook: the notebook that measures and shows it, of the project's own findings.
        sizes: sizes that differ from :data:`SIZES`, by profile.
        beside: what is measured once beside trials ("staleness").
        rates: how arrival rates are set, :data:`infscale.experiment.design.design.SEARCH` or ``SWEEP``.
        reference: the place in each block of the arm that the others are compared with.
        sensitivity: arms of the sensitivity check, or a function that returns them for a profile.
    """

    name: str
    question: str
    blocks: Callable[[str], Blocks] | Blocks
    answer: Callable[[Run, Tables], list[str]] = compared
    pictures: Sequence[Picture] = (SUMMARY,)
    notebook: str = ""
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    rates: str = SEARCH
    reference: int = 0
    sensitivity: Callable[[str], Sequence[Arm]] | Sequence[Arm] = ()

    def design(self, profile: str = "quick", **sizes: Unpack[Sizes]) -> Design:
        """Return what is measured for a profile: "tiny", "quick" or "full".

        Args:
            profile: decides about arms and sizes.
            sizes: values in place of the profile's; None keeps the profile's.

        Raises:
            ConfigError: an unknown profile, or a size that a design cannot have.
        """
        one_of("profile", profile, SIZES)
        blocks = self.blocks(profile) if callable(self.blocks) else self.blocks
        sensitivity = self.sensitivity(profile) if callable(self.sensitivity) else self.sensitivity
        chosen = {**SIZES[profile], **self.sizes.get(profile, {})}
        chosen |= {name: value for name, value in sizes.items() if value is not None}
        arms, contrasts = _numbered(blocks, self.reference)
        design = Design(
            finding=self.name,
            question=self.question,
            arms=arms,
            contrasts=contrasts,
            sensitivity=tuple(sensitivity),
            rates=self.rates,
            beside=self.beside,
            profile=profile,
        )
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
        return msgspec.structs.replace(design, **values)


def _numbered(blocks: Blocks, reference: int) -> tuple[tuple[Arm, ...], tuple[Contrast, ...]]:
    """Return the arms of all blocks, and the contrasts of each arm with the reference of its block."""
    arms: list[Arm] = []
    contrasts: list[Contrast] = []
    for block in blocks:
        start, compared_with = len(arms), min(reference, len(block) - 1)
        arms += block
        others = [place for place in range(len(block)) if place != compared_with]
        contrasts += [Contrast(start + place, start + compared_with) for place in others]
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


def column(tables: Tables, name: str) -> dict[int, float]:
    """Return a column of the summary by arm; NaN where nothing of that name was measured in the run."""
    if name not in tables.summary:
        return dict.fromkeys((int(arm) for arm in tables.summary["arm"]), float("nan"))
    return {int(arm): float(value) for arm, value in zip(tables.summary["arm"], tables.summary[name], strict=True)}
