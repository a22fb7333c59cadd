"""From what runs say of arms to a decision among the levels of a choice.

A *setting* is what the compared arms have in common (:data:`FIXED`), such as the framework on which two protocols are
compared. Every run that varies the choice in a setting is heard, and compares its own arms only: no number comes from
two runs, since they may be of two machines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from infscale.report.advice.arms import NO_CACHE, Answer, Evidence, Judged, State, compare, judge
from infscale.report.advice.question import PAYLOADS, REPEAT_WITHIN, Question

FIXED = {
    "protocol": ("framework",),
    "encoding": ("framework",),
    "framework": ("protocol", "form"),
    "replicas": ("protocol", "framework"),
    "cache": ("protocol", "framework"),
}
"""Choice → the factors in which arms must be equal to be compared for it; else two differences would be mixed up.
``form`` is JSON, base64 or binary."""

COST = ("replicas",)
"""Choices whose further parts cost as much as the first: more of them are never better where fewer are enough."""

Setting = tuple[str, ...]
"""The levels of the factors that a choice fixes, in their order."""


@dataclass(frozen=True)
class Heard:
    """What one run says of a choice in one setting.

    Attributes:
        choice: a key of :data:`FIXED`.
        one: the run's evidence.
        arms: the arms by their level of the choice, in the order of the design.
    """

    choice: str
    one: Evidence
    arms: Mapping[str, Sequence[Judged]]

    def state(self, level: str) -> State:
        """Return the best state of a level's arms; open where the run has none."""
        return min((arm.state for arm in self.arms.get(level, ())), default=State.OPEN)

    def meeting(self, level: str) -> list[Judged]:
        """Return the arms of a level that meet the limit."""
        return [arm for arm in self.arms.get(level, ()) if arm.state == State.MEETS]

    def encodings(self, level: str) -> set[str]:
        """Return the encodings with which a level was measured."""
        return {arm.encoding for arm in self.arms.get(level, ())}

    def over(self, level: str, other: str) -> bool:
        """Return whether one level is shown to be better: an arm of it that meets the limit beats all of the other."""
        theirs = self.arms.get(other, ())
        return bool(theirs) and any(all(self._beats(arm, rival) for rival in theirs) for arm in self.meeting(level))

    def _beats(self, arm: Judged, rival: Judged) -> bool:
        if rival.state != State.MEETS:
            return rival.state == State.FAILS
        ranked = self.choice not in COST or arm.parts == rival.parts
        return ranked and compare(self.one, arm, rival)[0] == Answer.FIRST

    def equal(self, level: str, other: str) -> bool:
        """Return whether all arms of two levels that meet the limit were shown to be equal."""
        pairs = [(arm, rival) for arm in self.meeting(level) for rival in self.meeting(other)]
        return bool(pairs) and all(compare(self.one, *pair)[0] == Answer.EQUAL for pair in pairs)


@dataclass(frozen=True)
class Decision:
    """What all runs together say of a choice in one setting.

    Attributes:
        setting: the levels that are fixed.
        heard: the runs, one at least.
        advised: the levels that are advised, in the order of the design; empty where none is shown to meet the limit.
        simplest: whether others were left out only because they have more parts, and are not shown to be better.
        unknown: levels of which no run says whether they meet the limit.
        doubted: advised levels of which another run says that they fail.
        contrary: whether two runs rank two advised levels differently.
    """

    setting: Setting
    heard: Sequence[Heard]
    advised: Sequence[str]
    simplest: bool
    unknown: Sequence[str]
    doubted: Sequence[str]
    contrary: bool

    @property
    def fails(self) -> bool:
        """Whether every level is shown to fail."""
        return not self.advised and not self.unknown


def decisions(question: Question, choice: str, known: Sequence[Evidence]) -> list[Decision]:
    """Return a decision for each setting in which a run varies the choice, in the order of runs and designs."""
    settings: dict[Setting, list[Heard]] = {}
    for one in known:
        arms = _alike(question, choice, one.arms)
        for setting, group in arms.groupby(list(FIXED[choice]), sort=False):
            levels = {
                str(level): [judge(question, one, arm) for _, arm in own.iterrows()]
                for level, own in group.groupby(choice, sort=False)
            }
            if len(levels) > 1:
                settings.setdefault(tuple(map(str, setting)), []).append(Heard(choice, one, levels))
    return [decide(setting, heard) for setting, heard in settings.items()]


def fitting(question: Question, arms: pd.DataFrame) -> pd.DataFrame:
    """Return the arms that carry the question's payload, and vary nothing that is not asked about."""
    model, batch, _ = PAYLOADS[question.payload]
    return arms[(arms["model"] == model) & (arms["batch"] == batch) & arms["plain"].astype(bool)]


def _alike(question: Question, choice: str, arms: pd.DataFrame) -> pd.DataFrame:
    """Return the arms that may be set side by side: one replica and no cache, unless that is the choice."""
    arms = fitting(question, arms)
    if choice != "replicas":
        arms = arms[arms["replicas"] == "1"]
    if choice != "cache":
        return arms[arms["cache"] == NO_CACHE]
    near = arms["repeat"].isna() | ((arms["repeat"].astype(float) - question.repeat).abs() <= REPEAT_WITHIN)
    return arms[near]


def decide(setting: Setting, heard: Sequence[Heard]) -> Decision:
    """Return the decision of all runs that vary a choice in one setting.

    Of the levels that a run shows to meet the limit, those are left out that a run shows to be worse than another,
    unless a second run contradicts it; a run that shows nothing contradicts none. A run that lacks an encoding of a
    level, which another run has, cannot show that the level is worse. Where more than one is left, those
    with the fewest parts are advised, and all of these alike: equal levels are never ranked. Levels on which runs
    contradict one another are not ranked by their parts either.

    More levels meet a looser limit or a smaller λ, and one of those that do is always advised: advice that was given
    is never taken back.
    """
    levels = list(dict.fromkeys(level for one in heard for level in one.arms))
    meeting = [level for level in levels if any(one.meeting(level) for one in heard)]
    failing = [level for level in levels if any(one.state(level) == State.FAILS for one in heard)]
    encodings = {level: set().union(*(one.encodings(level) for one in heard)) for level in levels}

    def shown(one: Heard, level: str) -> bool:
        """Return whether a run has all of a level: what beats REST with JSON may not beat REST with binary bodies."""
        return one.encodings(level) == encodings[level]

    over = {
        (a, b) for a in meeting for b in meeting if a != b and any(shown(one, b) and one.over(a, b) for one in heard)
    }
    equal = {(a, b) for a, b in over if any(shown(one, a) and shown(one, b) and one.equal(a, b) for one in heard)}
    opposed = {(a, b) for a, b in over if (b, a) in over} | equal
    beaten = {worse for _, worse in over - opposed}
    left = [level for level in meeting if level not in beaten] or meeting  # a circle ranks none
    contrary = any({a, b} <= set(left) for a, b in opposed)
    parts = {level: min(arm.parts for one in heard for arm in one.arms.get(level, ())) for level in levels}
    fewest = left if contrary else [level for level in left if parts[level] == min(parts[one] for one in left)]
    return Decision(
        setting=setting,
        heard=heard,
        advised=fewest,
        simplest=len(fewest) < len(left),
        unknown=[level for level in levels if level not in meeting and level not in failing],
        doubted=[level for level in fewest if level in failing],
        contrary=contrary,
    )
