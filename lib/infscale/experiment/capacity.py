"""The search for the rate at an SLO: the highest arrival rate at which a percentile stays within its limit.

Pure: :func:`search` takes a function that runs a trial, a real one or a simulated one, and decides rates, lengths, the
interval and the end. A request is *late* where it has not succeeded by its scheduled time plus the limit; the limit of
p99 is kept where at most 1 % of the requests are late. docs/decisions/0027-capacity.md says why it is done so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from infscale.errors import ConfigError
from infscale.experiment.design.slo import SCOUT_LATE, Slo

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
"""Probability that the interval does not hold the rate, at most."""

MOST_TRIALS, LEAST_LONG = 12, 4
"""Most trials of a search, and fewest long ones for an interval; repetitions of spoilt trials do not count."""

WARM_UP = 0.1
"""Share of a trial, from its start on an idle server, that does not count."""

BATCHES = 20
"""Equal parts of a trial, in requests: how much their late shares differ tells how much requests depend on another."""

LATE, LEAST_REQUESTS = 50, 200
"""Late requests that a long trial at the limit expects; fewest requests of any trial."""

RELAXATIONS = 80
"""Relaxation times of the queue that a long trial lasts, unless that takes longer than a trial may."""

CROSSINGS = 20
"""Times the limit that a long trial lasts at least: overload by 5 % is late only after so many."""

GROWTH, NEAR, CLOSE = 3.0, 1.75, 1.15
"""Ratio of neighbouring rates while an end of the bracket is unknown; ratio of its ends from which on trials are long;
ratio from which on rates come from the fit."""

PRECISION = 1.05
"""The search ends when the ends of the interval have this ratio."""

RESOLUTION = 3.0
"""What √n requests of a trial that is too short for the queue cannot tell apart, as a factor of 1 ÷ √n of the rate."""

SLOPES = np.geomspace(0.3, 3000, 31)
"""Slopes of the logarithm of the late share over that of the rate, of which the likeliest is taken for each rate."""

MOST_LATE = math.log(0.95)
"""Logarithm of the largest late share of the curve."""

MOST_S = 600.0
"""Longest trial that is begun, s."""


@dataclass(frozen=True)
class Trial:
    """What a trial has shown.

    Attributes:
        rate_per_s: its arrival rate.
        planned: requests that were to count, after the warm-up.
        requests, late: requests that counted, and how many of them were late.
        batches: late requests of each of :data:`BATCHES` equal parts; empty where there were too few requests.
        dependence: how many requests are worth an independent one, by those slower than nine in ten.
        hopeless: whether it was ended early because so many were late already.
        long: whether it enters the estimate, or has only looked for the neighbourhood.
    """

    rate_per_s: float
    planned: int
    requests: int
    late: int
    batches: Floats
    dependence: float
    hopeless: bool
    long: bool = True

    def kept(self, slo: Slo) -> bool:
        """Return whether the limit was kept in this trial."""
        return self.late <= slo.late * self.requests


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        value, low, high: the rate at the SLO and its 95 % interval, requests/s; NaN where only a bound is known.
        bound: "" for an estimate; "≥" where no rate that could be tried was too much, ``value`` being the highest that
            kept the limit; "<" where none kept it, ``value`` being the lowest.
        why: the reason of a bound; "" for an estimate.
        trials: in their order, without spoilt ones.
    """

    value: float
    low: float
    high: float
    bound: str
    why: str
    trials: list[Trial]


def goodput_per_s(found: Found) -> tuple[float, float]:
    """Return the rate of the whole long trial nearest to the estimate, and its requests in time, per second.

    One that was ended early has no goodput: it shows how late the first requests were.
    """
    whole = [one for one in found.trials if one.long and not one.hopeless]
    near = min(whole, key=lambda one: abs(math.log(one.rate_per_s / found.value)))
    return near.rate_per_s, near.rate_per_s * (1 - near.late / near.requests)


class SpoiltError(Exception):
    """The generator or its host failed in a trial, which says nothing."""


class TooLongError(ConfigError):
    """A trial with enough requests would take more than :data:`MOST_S`."""


Run = Callable[[float, int, bool], Trial]
"""Runs a trial: its rate, the requests that are to count, and whether it is long."""


def most_late(slo: Slo, planned: int) -> int:
    """Return how many late requests make a trial hopeless: √α of the planned ones, for α allowed.

    That is ten times what p99 allows. In a trial that lasts many relaxation times at a rate that keeps the limit it
    hardly happens: by Markov's inequality less often than with probability √α, whatever the dependence.
    """
    return max(1, math.ceil(math.sqrt(slo.late) * planned))


def observe(rate_per_s: float, response_ms: Floats, slo: Slo, planned: int, *, hopeless: bool, long: bool) -> Trial:
    """Return what a trial has shown.

    Args:
        rate_per_s: its arrival rate.
        response_ms: of the requests that count, in the order of arrival, ∞ for one that failed, shape (n,).
        slo: the objective.
        planned: how many were to count.
        hopeless: whether it was ended early.
        long: see :class:`Trial`.
    """
    late, each = response_ms > slo.limit_ms, len(response_ms) // BATCHES
    batches, dependence = np.empty(0), float(max(1, len(response_ms)))
    if each >= 5:
        parts = slice(0, each * BATCHES)
        batches = late[parts].reshape(BATCHES, each).sum(axis=1).astype(np.float64)
        slow = response_ms[parts] > np.quantile(response_ms[parts], 0.9, method="lower")
        share = slow.mean()
        spread = float(slow.reshape(BATCHES, each).mean(axis=1).var(ddof=1))
        dependence = max(1.0, spread * each / (share * (1 - share))) if 0 < share < 1 else 1.0
    return Trial(rate_per_s, planned, len(response_ms), int(late.sum()), batches, dependence, hopeless, long)


def relaxation(rate_per_s: float, slo: Slo) -> float:
    """Return the relaxation time of a queue whose rate at the SLO is ``rate_per_s``, in requests.

    Of a queue in heavy traffic whose response time is above the limit with probability α, arrivals Poisson and service
    constant: 8 (λ L ÷ ln α)². Service times that vary make it shorter, as the same limit then leaves a lower load.

    Source: W. Whitt, "Planning queueing simulations", Management Science 35 (1989): reflected Brownian motion.
    """
    return 8 * (rate_per_s * slo.limit_ms / 1e3 / math.log(slo.late)) ** 2


def long_enough(rate_per_s: float, slo: Slo, longest_s: float) -> int:
    """Return the requests of a long trial: for the precision, for the queue, and not longer than need be."""
    settled = min(longest_s * rate_per_s, RELAXATIONS * relaxation(rate_per_s, slo))
    crossings = CROSSINGS * rate_per_s * slo.limit_ms / 1e3
    return math.ceil(max(LATE / slo.late, settled, crossings, LEAST_REQUESTS))


# -------------------------------------------------------------------------------------------- the estimate


@dataclass(frozen=True)
class _Fit:
    """The likeliest logarithm of the rate, the slope there, and the ends of the interval."""

    value: float
    slope: float
    low: float
    high: float


def _dependence(trials: Sequence[Trial], slo: Slo) -> float:
    """Return how many late requests are worth an independent one, from the batches of all trials together."""
    seen, expected = 0.0, 0.0
    for one in trials:
        if one.late and not one.hopeless and len(one.batches):
            each = one.requests // BATCHES
            share = float(one.batches.mean()) / each
            seen += float(((one.batches - each * share) ** 2).sum()) * BATCHES / (BATCHES - 1)
            expected += each * BATCHES * share * (1 - share)
    return max(1.0, seen / expected) if expected else 1.0


def _fit(trials: Sequence[Trial], slo: Slo) -> _Fit:
    """Fit the late share, α (λ ÷ θ)^slope, to the trials by quasi-likelihood.

    In M/M/1 it is exp(−(μ − λ) L), a line of the logarithm near θ. A trial's requests count for as many independent
    ones as :func:`_dependence` and its own slow ones say. A hopeless trial says that the share is √α or more. The
    interval holds the θ whose likelihood, with the best slope, is near enough to the largest: Student's t, squared,
    with the number of trials − 2 degrees of freedom, instead of χ².
    """
    rates = np.log([one.rate_per_s for one in trials])
    shared = _dependence(trials, slo)
    worth = np.array([max(shared, one.dependence) for one in trials])
    all_, late = np.array([one.requests for one in trials]) / worth, np.array([one.late for one in trials]) / worth
    planned = np.array([one.planned for one in trials]) / shared
    hopeless = np.array([one.hopeless for one in trials])
    share, crucial = math.sqrt(slo.late), math.log(slo.late) / 2

    def likelihood(theta: Floats) -> Floats:
        log = np.minimum(math.log(slo.late) + SLOPES[:, None] * (rates - theta[:, None, None]), MOST_LATE)
        rest = np.log1p(-np.exp(log))
        counted = late * log + (all_ - late) * rest
        below = planned * (share * (log - crucial) + (1 - share) * (rest - math.log1p(-share)))
        values: Floats = np.where(hopeless, np.where(log < crucial, below, 0.0), counted).sum(axis=-1)
        return values

    far = float(special.stdtrit(max(2, len(trials) - 2), 1 - ALPHA / 2)) ** 2 / 2
    low, high = rates.min() - 0.5, rates.max() + 0.5
    for _ in range(2):  # a coarse grid, then a fine one over what is left
        grid = np.linspace(low, high, 81)
        by_slope = likelihood(grid)
        best = by_slope.max(axis=1)
        inside = np.flatnonzero(best >= best.max() - far)
        low, high = grid[inside[0]] - (grid[1] - grid[0]), grid[inside[-1]] + (grid[1] - grid[0])
    flat = np.flatnonzero(best >= best.max() - 1e-3)  # where late shares are 0 below and 1 above, any θ between
    slope = SLOPES[by_slope[int(best.argmax())].argmax()]
    return _Fit(float(grid[flat[0]] + grid[flat[-1]]) / 2, float(slope), float(low), float(high))


def _widened(fit: _Fit, slo: Slo, longest_s: float) -> tuple[float, float, float]:
    """Return the value and the ends of the interval, requests/s, where trials may be too short for the queue.

    Near a load of 1 a queue takes longer to become long than a trial lasts: over n requests rates that differ by less
    than about 1 ÷ √n look alike. A trial that starts empty errs to one side, so that the low end moves by more: also by
    the overload under which the limit is reached only at the trial's end.
    """
    rate = math.exp(fit.value)
    requests, low, high = long_enough(rate, slo, longest_s), fit.low, fit.high
    if requests < RELAXATIONS * relaxation(rate, slo):
        unseen = RESOLUTION / math.sqrt(requests)
        low, high = low - unseen - rate * slo.limit_ms / 1e3 / requests, high + unseen
    return rate, math.exp(low), math.exp(high)


# -------------------------------------------------------------------------------------------- the search


@dataclass
class _State:
    """The trials of a search so far."""

    run: Run
    slo: Slo
    most: float
    longest_s: float
    trials: list[Trial] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        return len(self.trials) >= MOST_TRIALS

    def bracket(self, *, long: bool) -> tuple[float, float]:
        """Return the highest rate that kept the limit and the lowest that did not; 0 and ∞ where there is none."""
        known = [one for one in self.trials if one.long or not long]
        low = max((one.rate_per_s for one in known if one.kept(self.slo)), default=0.0)
        return low, min((one.rate_per_s for one in known if not one.kept(self.slo)), default=math.inf)

    def tries(self, rate: float, *, long: bool) -> float:
        """Run a trial at a rate, to four digits, and return that rate."""
        rate = min(float(f"{rate:.4g}"), self.most)
        requests = long_enough(rate, self.slo, self.longest_s)
        if not long:
            crossings = CROSSINGS / 4 * rate * self.slo.limit_ms / 1e3
            requests = min(requests, math.ceil(max(SCOUT_LATE / self.slo.late, crossings, LEAST_REQUESTS)))
        if requests / rate > MOST_S:
            raise TooLongError(
                f"slo={self.slo} needs trials of {requests:,} requests, which take {requests / rate / 60:.0f} minutes "
                f"at {rate:g} requests/s; accepted: a percentile or limit whose trials take 10 minutes or less"
            )
        self.trials.append(self.run(rate, requests, long))
        return rate


def search(run: Run, slo: Slo, first: float, *, most: float = math.inf, longest_s: float = math.inf) -> Found:
    """Return the rate at an SLO, with its interval.

    Short trials bracket it: the rate goes up or down threefold, then to the middle. Long ones follow, first at the
    middle, then near the estimate, on both sides in turn, until the interval is narrow or the trials are spent.

    Args:
        run: runs a trial; it raises :class:`SpoiltError` where repeating it did not help.
        slo: the objective.
        first: the first rate, requests/s.
        most: the highest rate to try, requests/s.
        longest_s: trials are not made longer than this for the sake of the queue, s; the interval is wider then.

    Raises:
        ConfigError: trials with enough requests would take too long, and it is not that no faster one kept the limit.
    """
    state, why = _State(run, slo, most, longest_s), ""
    try:
        if _scout(state, first) and (fit := _close_in(state)):
            return Found(*_widened(fit, slo, longest_s), "", "", state.trials)
    except SpoiltError as error:
        why = f"the load generator or its host failed: {error}"
    except TooLongError:
        if not state.trials or state.bracket(long=False)[0]:
            raise
        why = f"at lower rates trials would take more than {MOST_S / 60:.0f} minutes"
    low, high = state.bracket(long=False)
    if why and math.isinf(high) and not low:
        return Found(math.nan, math.nan, math.nan, "?", why, state.trials)
    if low and not math.isfinite(high):
        why = why or (
            "no higher rate may be tried" if low >= most else f"the trials were spent after {len(state.trials)}"
        )
        return Found(low, math.nan, math.nan, "≥", why, state.trials)
    if not low:
        return Found(high, math.nan, math.nan, "<", why or "no rate that was tried keeps the limit", state.trials)
    return Found(low, math.nan, math.nan, "≥", why or "long trials found no rate on both sides of it", state.trials)


def _scout(state: _State, first: float) -> bool:
    """Bracket the rate by short trials; return whether both ends are known and near."""
    rate = first
    while not state.spent:
        rate = state.tries(rate, long=False)
        low, high = state.bracket(long=False)
        if low >= state.most:
            return False
        if low and high <= low * NEAR:
            return True
        rate = rate * GROWTH if math.isinf(high) else rate / GROWTH if not low else math.sqrt(low * high)
    return False


def _close_in(state: _State) -> _Fit | None:
    """Estimate the rate by long trials; None where they do not find both sides of it."""
    low, high = state.bracket(long=False)
    step, rate, turn = max(math.sqrt(max(high / low, 1.0)), PRECISION), math.sqrt(low * high), 0
    while not state.spent:
        rate = state.tries(rate, long=True)
        low, high = state.bracket(long=True)
        if not low or math.isinf(high):
            if low >= state.most:
                return None
            rate, step = (low * step if low else high / step), step * 1.2
            continue
        long = [one for one in state.trials if one.long]
        if high > low * CLOSE and len(long) < LEAST_LONG:
            rate = math.sqrt(low * high)
            continue
        fit = _fit(long, state.slo)
        if len(long) >= LEAST_LONG and fit.high - fit.low <= math.log(PRECISION):
            return fit
        turn += 1
        aside = min(0.6 / fit.slope, 0.05)  # where late shares are about half and twice what is allowed
        rate = math.exp(fit.value + (aside if turn % 2 else -aside)) if high <= low * CLOSE else math.sqrt(low * high)
    low, high = state.bracket(long=True)
    return _fit([one for one in state.trials if one.long], state.slo) if low and math.isfinite(high) else None
