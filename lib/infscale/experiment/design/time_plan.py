"""How long a run takes, roughly: printed before anything starts."""

from infscale.experiment.design.design import SEARCH, Design
from infscale.experiment.design.labels import count
from infscale.vocabulary import clock

# Seconds beside the arrivals themselves, measured on two cores; they only feed the time plan: the start of a server,
# its warm-up by protocol, the pause between trials, the pilot by arm, the generator's ceiling by protocol.
_START_S, _WARM_S, _BETWEEN_S, _PILOT_ARM_S, _CEILING_S = 6.0, 2.5, 0.5, 20.0, 7.0


def seconds(design: Design) -> float:
    """Return the rough duration of the whole run, s."""
    return sum(duration for _, duration in parts(design))


def time_plan(design: Design) -> str:
    """Return the plan as text: what takes how long."""
    sizes = f"{count(design.replicates, 'replicate')}, {count(len(design.fractions), 'rate')}"
    lines = [f"Time plan, profile {design.profile} ({sizes}):"]
    lines += [f"  {clock(duration):>8}  {what}" for what, duration in parts(design) if duration]
    return "\n".join([*lines, f"  {clock(seconds(design))}  in all, roughly"])


def parts(design: Design) -> list[tuple[str, float]]:
    """Return what takes how long: a description and seconds, for each part of the run."""
    return _parts_of_search(design) if design.rates == SEARCH else _parts_of_sweep(design)


def _parts_of_sweep(design: Design) -> list[tuple[str, float]]:
    arms, saturated = len(design.arms), design.saturated_trials()
    blocks = len(design.blocks())
    starts = blocks * (design.replicates + 1) + saturated * design.restart
    starts += blocks * design.replicates * bool(design.bisections)
    tail = design.timeout_s / 2 * saturated
    narrowing = design.bisections * arms * design.replicates
    each = design.trial_s + _BETWEEN_S
    protocols = len(design.protocols())
    return [
        ("the generator's own ceiling", _CEILING_S * protocols),
        (f"pilot: rough saturation rate λ* of {count(arms, 'arm')}", _PILOT_ARM_S * arms),
        (f"{design.trials()} trials of {design.trial_s:g} s", design.trials() * each + tail),
        (f"{design.extra_trials()} trials of the sensitivity check", design.extra_trials() * each),
        (f"{narrowing} trials that narrow λ*", narrowing * (each + design.timeout_s / 4)),
        (f"about {starts} server starts and warm-ups", starts * (_START_S + _WARM_S * protocols)),
    ]


def _parts_of_search(design: Design) -> list[tuple[str, float]]:
    arms = len(design.arms)
    starts = len(design.deployments()) * (design.replicates + 1)
    narrowing = arms * design.bisections * design.replicates
    common = arms * len(design.fractions) * design.replicates
    each = design.trial_s + _BETWEEN_S + design.timeout_s / 4
    warm = _WARM_S * arms * (design.replicates + 1)
    return [
        ("the generator's own ceiling", _CEILING_S * len(design.protocols())),
        (f"pilot: rough saturation rate λ* of {count(arms, 'arm')}", _PILOT_ARM_S * arms),
        (f"{common} trials at common rates", common * each),
        (f"{narrowing} trials that narrow λ*", narrowing * each),
        (f"{starts} server starts and warm-ups", starts * _START_S + warm),
    ]
