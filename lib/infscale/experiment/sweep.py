"""Measuring a sweep: all arms of a block at shares of their largest saturation rate, in random order, per replicate."""

import numpy as np

from infscale.deployment.endpoint import Endpoint
from infscale.experiment.bracket import bisect, pilot
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.experiment.session import Session
from infscale.experiment.settle import drain
from infscale.records.gate import INVALID, SATURATED
from infscale.records.manifest import Phase

Todo = tuple[str, Phase, int, float, tuple[int, ...]]
"""A trial that is to be run: name, phase, number of the arm, λ, and the key of its draws."""


def measure(session: Session) -> None:
    """Measure what a run does not hold yet of a sweep.

    Raises:
        DeploymentError, MissingError: a server could not be started.
    """
    for block in session.design.blocks():
        pilot(session, block)
    for replicate in range(session.design.replicates):
        for block, pairs in order(session.design, replicate):
            _replicate(session, replicate, block, pairs)


def order(design: Design, replicate: int) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Return a replicate's random order: blocks, and within each its pairs of (arm, index of λ)."""
    rng = np.random.default_rng(np.random.SeedSequence(design.seed, spawn_key=(99, replicate)))
    blocks = design.blocks()
    shuffled = [blocks[i] for i in rng.permutation(len(blocks))]
    every = [[(arm, i) for arm in block for i in range(len(design.fractions))] for block in shuffled]
    return [
        (block, [pairs[i] for i in rng.permutation(len(pairs))]) for block, pairs in zip(shuffled, every, strict=True)
    ]


def _replicate(session: Session, replicate: int, block: list[int], pairs: list[tuple[int, int]]) -> None:
    """Run all trials of one block in one replicate, on a server started for it."""
    design = session.design
    rates = session.manifest.rates_per_s[design.block(block[0])]
    todo: list[Todo] = [
        (f"{session.name(arm)}-{i}-r{replicate}", "grid", arm, rates[i], (replicate + 1, i)) for arm, i in pairs
    ]
    middle = max(0, len(rates) // 2 - 1)
    for arm in range(len(design.arms), len(design.every_arm())):
        if design.block(arm) == design.block(block[0]):
            name = f"{session.name(arm)}-r{replicate}"
            todo.append((name, "sensitivity", arm, rates[middle], (replicate + 1, middle)))
    todo = [item for item in todo if _next_attempt(session, item[0])]
    first = design.arms[block[0]]
    while todo:
        session.patiently(first, lambda endpoint: _on_one_server(session, endpoint, replicate, todo, rates))
    _bisect(session, replicate, block, rates)


def _on_one_server(session: Session, endpoint: Endpoint, replicate: int, todo: list[Todo], rates: list[float]) -> None:
    """Run trials of ``todo``, removing each when it is done, until none is left or the server is spent."""
    for protocol in dict.fromkeys(session.design.every_arm()[item[2]].protocol for item in todo):
        session.warm(endpoint, Arm(protocol), rates[len(rates) // 2])
    while todo:
        verdict = _attempt(session, endpoint, replicate, *todo[0])
        if not _next_attempt(session, todo[0][0]):
            todo.pop(0)
        if verdict == SATURATED and session.design.restart:
            return


def _bisect(session: Session, replicate: int, block: list[int], rates: list[float]) -> None:
    """Narrow the bracket of λ* of every arm of a block, on a server started for it."""
    if not session.design.bisections:
        return

    def narrow(endpoint: Endpoint) -> None:
        for arm in block:
            session.warm(endpoint, session.design.arms[arm], rates[len(rates) // 2])
            bisect(session, endpoint, replicate, arm, rates)

    session.patiently(session.design.arms[block[0]], narrow)


def _next_attempt(session: Session, name: str) -> int:
    """Return the attempt that is to be made of a trial: 1, or 2 after an INVALID first one; 0 when it is done."""
    first = session.stored(f"{name}-a1")
    if first is None or first.verdict is None:
        return 1
    return 2 if first.verdict.name == INVALID and session.stored(f"{name}-a2") is None else 0


def _attempt(
    session: Session,
    endpoint: Endpoint,
    replicate: int,
    name: str,
    phase: Phase,
    arm: int,
    rate: float,
    key: tuple[int, ...],
) -> str:
    attempt, duration = _next_attempt(session, name), session.design.duration_s(rate)
    plan = session.plan(arm, rate, key, duration, phase=phase, replicate=replicate, attempt=attempt)
    drain(endpoint)
    verdict = session.run(endpoint, f"{name}-a{attempt}", plan).judged
    session.say(f"replicate {replicate + 1}: {session.labels[arm]} λ={rate:g}/s {phase}: {verdict.short}")
    return verdict.name
