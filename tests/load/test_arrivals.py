"""If these fail, the load is not the process that every figure's axis claims."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from infscale.errors import ConfigError
from infscale.load import schedule as arrivals
from infscale.load.schedule import Process

SEED = np.random.SeedSequence
Times = npt.NDArray[np.float64]
DURATION = 100.0


@dataclass(frozen=True)
class Case:
    """A process over 100 s, its mean rate, and the squared coefficient of variation of its gaps.

    ``expected`` is Λ(t), the mean number of arrivals until t: in its time scale every process here is stationary.
    """

    process: Process
    rate: arrivals.Rates
    mean_per_s: float
    cv2: float
    expected: Callable[[Times], Times]


def steady(rate: float, t: Times) -> Times:
    return rate * t


def ramped(t: Times) -> Times:
    return 400 * t + (3600 - 400) * t**2 / (2 * DURATION)


def stepped(t: Times) -> Times:
    quarters = np.cumsum([0, 1000, 3000, 0, 4000]) * DURATION / 4
    return np.interp(t, np.linspace(0, DURATION, 5), quarters)


TRACE = Process("trace", trace=np.cumsum(np.random.default_rng(1).lognormal(15, 0.5, 200_001)).astype(np.int64))
TRACE_CV2 = float(np.exp(0.5**2) - 1)

CASES = {
    "poisson": Case(Process("poisson"), 2000, 2000, 1, partial(steady, 2000)),
    "constant": Case(Process("constant"), 2000, 2000, 0, partial(steady, 2000)),
    "gamma 0.5": Case(Process("gamma", cv=0.5), 2000, 2000, 0.25, partial(steady, 2000)),
    "gamma 1": Case(Process("gamma", cv=1), 2000, 2000, 1, partial(steady, 2000)),
    "gamma 3": Case(Process("gamma", cv=3), 2000, 2000, 9, partial(steady, 2000)),
    "ramp": Case(Process("ramp"), (400, 3600), 2000, 1, ramped),
    "steps": Case(Process("steps"), (1000, 3000, 0, 4000), 2000, 1, stepped),
    "trace": Case(TRACE, 2000, 2000, TRACE_CV2, partial(steady, 2000)),
}
POISSON = [name for name, case in CASES.items() if case.cv2 == 1]


def drawn(case: Case, shards: int, seed: int = 5) -> tuple[Times, Sequence[arrivals.Schedule]]:
    """The superposition of some shards in seconds, and the shards."""
    parts = arrivals.shards(case.rate, DURATION, SEED(seed), shards, case.process)
    return np.sort(np.concatenate(parts)) / 1e9, parts


each = pytest.mark.parametrize("name", CASES)
one_and_many = pytest.mark.parametrize("shards", [1, 4])


@each
@one_and_many
def test_the_mean_rate_is_the_one_asked_for_in_every_part(name: str, shards: int) -> None:
    case = CASES[name]
    times, parts = drawn(case, shards)
    edges = np.linspace(0, DURATION, 9)
    counts = np.histogram(times, edges)[0]
    expected = np.diff(case.expected(edges))
    spread = np.sqrt(np.maximum(case.cv2, 0.01) * expected) + 2
    assert (np.abs(counts - expected) < 4 * spread).all(), counts - expected
    assert sum(expected) == pytest.approx(case.mean_per_s * DURATION)
    assert [len(part) for part in parts] == pytest.approx([len(times) / shards] * shards, rel=0.05)


@each
@one_and_many
def test_counts_are_dispersed_and_gaps_uncorrelated_as_the_process_has_it(name: str, shards: int) -> None:
    """Workers with one seed keep the mean and ruin the process: as many times the dispersion as there are workers.

    The index of dispersion of counts of a renewal process tends to cv² of its gaps (D. R. Cox, Renewal Theory).
    """
    case = CASES[name]
    counts_scale = case.expected(drawn(case, shards)[0])
    counts = np.histogram(counts_scale, np.arange(0, case.mean_per_s * DURATION, 100))[0]
    assert counts.var() / counts.mean() == pytest.approx(case.cv2, rel=0.1, abs=0.01)
    gaps = np.diff(counts_scale)
    assert gaps.std() / gaps.mean() == pytest.approx(np.sqrt(case.cv2), rel=0.05, abs=0.01)
    if case.cv2:
        assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("name", POISSON)
@one_and_many
def test_gaps_are_exponential_where_the_process_is_poisson(name: str, shards: int) -> None:
    case = CASES[name]
    gaps = np.diff(case.expected(drawn(case, shards)[0]))
    gaps = np.maximum(gaps, 1e-6 * gaps.mean())  # times are whole ns: a gap of 0 is one below 1 ns, not of length 0
    # Anderson–Darling with estimated scale: 1.957 is the 1 % critical value for the exponential.
    result = stats.anderson(gaps, "expon", method="interpolate")  # type: ignore[call-overload]  # stubs misspell it
    assert result.statistic < 1.957


@pytest.mark.parametrize("name", ["poisson", "ramp", "steps"])
def test_shards_of_poisson_processes_are_independent(name: str) -> None:
    """Dealt, or with seeds in common, the shards' counts would be correlated, and each shard no Poisson process."""
    case = CASES[name]
    _, parts = drawn(case, 2)
    counts = [np.histogram(case.expected(part / 1e9), np.arange(0, 200_000, 100))[0] for part in parts]
    assert abs(np.corrcoef(counts[0], counts[1])[0, 1]) < 0.08
    for count in counts:
        assert count.var() / count.mean() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", ["constant", "gamma 0.5", "gamma 3", "trace"])
def test_other_processes_are_dealt_in_turn(name: str) -> None:
    """What does not add up (two constant processes make no constant one) must be one schedule, cut apart."""
    case = CASES[name]
    (whole,) = drawn(case, 1)[1]
    for k, part in enumerate(drawn(case, 3)[1]):
        assert np.array_equal(part, whole[k::3])


@each
@one_and_many
def test_a_seed_gives_one_schedule_however_often_it_is_used(name: str, shards: int) -> None:
    """A paper's arms must meet the same arrivals: a seed that is used up by drawing would pair them wrongly."""
    case, seed = CASES[name], SEED(9, spawn_key=(3,))
    first = arrivals.shards(case.rate, DURATION, seed, shards, case.process)
    again = arrivals.shards(case.rate, DURATION, seed, shards, case.process)
    other = arrivals.shards(case.rate, DURATION, SEED(10), shards, case.process)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    if name != "trace":
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_seeds_draw_the_schedules_that_stored_runs_were_made_with() -> None:
    """Stored manifests hold only seeds: another draw would make past runs unrepeatable."""
    assert arrivals.poisson(1000, 1, SEED(1))[:3].tolist() == [1_073_029, 1_381_482, 6_756_919]


RATES = st.floats(0.1, 5000)
PROCESSES = st.one_of(
    st.tuples(st.just(Process("poisson")), RATES),
    st.tuples(st.just(Process("constant")), RATES),
    st.tuples(st.builds(Process, st.just("gamma"), st.floats(*arrivals.CV_RANGE)), RATES),
    st.tuples(
        st.just(Process("ramp")), st.one_of(st.tuples(st.just(0.0), RATES), st.tuples(RATES, st.floats(0, 5000)))
    ),
    st.tuples(st.just(Process("steps")), st.lists(st.floats(0, 5000), min_size=1, max_size=5).filter(any)),
    st.tuples(
        st.builds(Process, st.just("trace"), trace=st.lists(st.integers(-(2**60), 2**60), min_size=1).map(np.array)),
        st.just(()),
    ),
)


@given(PROCESSES, st.floats(0.01, 2), st.integers(0, 2**32), st.integers(1, 5))
def test_any_schedule_is_ascending_within_its_time_and_repeats_by_seed(
    drawing: tuple[Process, arrivals.Rates], duration: float, seed: int, count: int
) -> None:
    process, rate = drawing
    parts = arrivals.shards(rate, duration, SEED(seed), count, process)
    assert len(parts) == count
    for schedule in parts:
        assert schedule.dtype == np.int64
        assert schedule.flags["C_CONTIGUOUS"]
        assert (np.diff(schedule) >= 0).all()
        assert ((schedule >= 0) & (schedule < duration * 1e9)).all()
    again = arrivals.shards(rate, duration, SEED(seed), count, process)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


FLOATS = st.one_of(st.floats(), st.floats(0, 5000), st.sampled_from([5e-324, 1e-310, 1e300, 1.7e308]))
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def anything(draw: st.DrawFn) -> tuple[Process, arrivals.Rates, float, int]:
    """A process, rates, a duration and a number of shards, which are whatever their types allow."""
    name = draw(st.sampled_from(arrivals.PROCESSES))
    trace = draw(st.lists(INTEGERS, max_size=4)) if name == "trace" else []
    process = Process(name, draw(FLOATS), np.array(trace, np.int64))
    single = st.one_of(FLOATS, st.just(10**400))
    several = st.lists(FLOATS, max_size=5).map(tuple)
    rates = several if name == "steps" else st.tuples(FLOATS, FLOATS) if name == "ramp" else single
    no_rate: st.SearchStrategy[arrivals.Rates] = st.just(()) if name == "trace" else st.nothing()
    return process, draw(st.one_of(rates, no_rate)), draw(FLOATS), draw(st.integers(1, 5))


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawing=anything(), seed=st.integers(0, 2**32))
def test_whatever_numbers_are_given_make_a_schedule_or_are_refused(
    drawing: tuple[Process, arrivals.Rates, float, int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's typing error must not become arrivals at wrong times, nor a traceback from inside numpy."""
    monkeypatch.setattr(arrivals, "MAX_REQUESTS", 10_000)  # more would only take long
    process, rate, duration, count = drawing
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        try:
            parts = arrivals.shards(rate, duration, SEED(seed), count, process)
        except ConfigError:
            return
    assert len(parts) == count
    for schedule in parts:
        assert schedule.dtype == np.int64
        assert (np.diff(schedule) >= 0).all()
        assert ((schedule >= 0) & (schedule < duration * 1e9)).all()
    if process.name in ("constant", "poisson", "ramp", "steps"):
        rates = np.atleast_1d(np.asarray(rate, dtype=float))
        expected = float(np.mean(rates / rates.max()) * (rates.max() * duration))
        assert abs(sum(map(len, parts)) - expected) <= 8 * np.sqrt(expected) + 20


@pytest.mark.parametrize("rates", [(5e-324, 100.0), (100.0, 5e-324), (5e-324, 0, 100.0), (1e-310, 100.0, 1e-310)])
def test_a_step_too_weak_to_send_a_request_is_a_pause(rates: tuple[float, ...]) -> None:
    schedule, step = arrivals.steps(rates, 10, SEED(1)), 10e9 / len(rates)
    busy = rates.index(100.0)
    assert len(schedule) == pytest.approx(1000 / len(rates), rel=0.2)
    assert ((schedule >= busy * step) & (schedule < (busy + 1) * step)).all()


@pytest.mark.parametrize("cv", [0.5, 4.0])
def test_gamma_expects_the_asked_number_of_requests_however_short(cv: float) -> None:
    """A bursty process that starts at a burst would offer more than its rate in short trials."""
    counts = [len(arrivals.gamma(100, 0.1, SEED(seed), cv)) for seed in range(4000)]
    assert np.mean(counts) == pytest.approx(10, abs=4 * float(np.std(counts)) / np.sqrt(4000))


@pytest.mark.parametrize("rate", [10, 100.5, 3])
def test_constant_gaps_are_equal_and_none_is_lost(rate: float) -> None:
    schedule = arrivals.constant(rate, 4, SEED(2))
    assert len(schedule) in (int(rate * 4), int(rate * 4) + 1)
    assert np.ptp(np.diff(schedule)) <= 1


def test_a_trace_is_replayed_as_it_is_scaled_to_a_rate_and_cut() -> None:
    trace = np.array([5_000_000_000, 2_000_000_000, 2_500_000_000, 4_000_000_000])
    assert arrivals.replay(trace).tolist() == [0, 500_000_000, 2_000_000_000, 3_000_000_000]
    assert arrivals.replay(trace, rate_per_s=2).tolist() == [0, 250_000_000, 1_000_000_000, 1_500_000_000]
    assert arrivals.replay(trace, duration_s=1.5, rate_per_s=2).tolist() == [0, 250_000_000, 1_000_000_000]


@pytest.mark.parametrize("rate", [0, -5, float("nan"), float("inf"), "100", True, None])
def test_a_rate_that_is_no_positive_number_is_named(rate: float) -> None:
    for process in ("poisson", "constant", "gamma"):
        with pytest.raises(ConfigError, match=r"rate=.* accepted: a number of requests/s above 0"):
            arrivals.draw(Process(process), rate, 1, SEED(1))


@pytest.mark.parametrize(
    ("process", "rate", "duration", "message"),
    [
        (Process("poisson"), 1, 0, "duration_s=0 is not a duration"),
        (Process("poisson"), 1, 1e10, "duration_s=10000000000.0 is not a duration"),
        (Process("poisson"), 1e12, 1, "accepted: at most 100,000,000"),
        (Process("ramp"), (0, 1e12), 1, "accepted: at most 100,000,000"),
        (Process("poisson"), (1, 2), 1, "accepted: 1 rate"),
        (Process("ramp"), 5, 1, "accepted: 2 rate"),
        (Process("ramp"), (0, 0), 1, "not all 0"),
        (Process("steps"), (5, -1), 1, "none negative"),
        (Process("steps"), (), 1, "not all 0"),
        (Process("gamma", cv=0), 5, 1, "cv=0 .* accepted: 0.001 to 100"),
        (Process("gamma", cv=float("nan")), 5, 1, "cv=nan"),
        (Process("trace"), (), 1, "the trace holds no arrival"),
        (Process("trace", trace=np.array([7, 7])), 5, 1, "simultaneous"),
        (Process("trace", trace=np.array([-(2**62) - 1, 2**62])), 5, 1, "further apart"),
        (
            Process("trace", trace=np.array([7, 8])),
            5e-324,
            1,
            r"rate=5e-324 stretches the trace beyond 1e\+09 s; give a higher rate",
        ),
        (Process("poisson"), 10**400, 1, "accepted: a number of requests/s above 0"),
        (Process("uniform"), 5, 1, "accepted: constant, gamma, poisson, ramp, steps, trace"),
    ],
)
def test_bad_input_is_named(process: Process, rate: arrivals.Rates, duration: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        arrivals.draw(process, rate, duration, SEED(1))


def test_payload_choice_covers_the_pool_evenly() -> None:
    choice = arrivals.payload_choice(64_000, 64, SEED(1))
    assert stats.chisquare(np.bincount(choice, minlength=64)).pvalue > 0.001
