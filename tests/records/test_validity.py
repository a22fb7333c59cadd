"""The verdicts: each gate has a case that must fail it, and a sound trial that must pass it."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.synthetic_run import Ints, generator_of, host_of, poisson
from infscale.load.null_server import lindley
from infscale.records import samples
from infscale.records.gate import INVALID, SATURATED, UNSTEADY, VALID, Verdict
from infscale.records.gates.generator import arrivals, delivered, lag
from infscale.records.gates.server import GROWTH_ALPHA, batch_means, growth, saturated, slope_with_error
from infscale.records.gates.steady import steady
from infscale.records.gates.verdict import judge
from infscale.records.manifest import Generator, Host
from infscale.records.samples import NEVER

DURATION_S = 4.0


def sound(n_per_s: float = 800.0, seed: int = 0) -> pd.DataFrame:
    """A trial with which nothing is wrong: Poisson arrivals, responses of 1 to 3 ms, a lag of about 60 µs."""
    rng = np.random.default_rng(seed)
    scheduled = poisson(rng, n_per_s, DURATION_S)
    lag = rng.lognormal(np.log(60_000), 0.5, len(scheduled)).astype(np.int64)
    return samples.synthetic(scheduled, rng.integers(1_000_000, 3_000_000, len(scheduled)), lag_ns=lag)


def verdict_of(
    frame: pd.DataFrame,
    generator: Generator | None = None,
    host: Host | None = None,
    rate_per_s: float = 400.0,
    ceiling_per_s: float | None = 60_000.0,
) -> Verdict:
    """Return the verdict where generator and host are sound but for those given."""
    return judge(
        frame,
        DURATION_S,
        generator or generator_of(),
        host or host_of(),
        rate_per_s=rate_per_s,
        ceiling_per_s=ceiling_per_s,
    )


def with_status(frame: pd.DataFrame, share: float, status: str) -> pd.DataFrame:
    """The last ``share`` of the rows in another status."""
    statuses = frame["status"].to_numpy(dtype=object).copy()
    statuses[len(frame) - round(share * len(frame)) :] = status
    return frame.assign(status=statuses)


def test_a_sound_trial_is_valid() -> None:
    # Without this, every gate below could pass by always failing.
    verdict = verdict_of(sound())
    assert (verdict.name, verdict.reasons, verdict.errors) == (VALID, (), {})
    assert all(gate.passed for gate in verdict.gates)


def test_the_order_of_rows_does_not_matter() -> None:
    # Shards are concatenated: a verdict that depended on the order would change with their number.
    frame = sound()
    assert verdict_of(frame.sample(frac=1, random_state=1)) == verdict_of(frame)


# --- generator and host -------------------------------------------------------------------------------


def test_a_paused_generator_is_invalid_not_saturated() -> None:
    # A generator that stops looks like a server that stops: readers would blame the server.
    frame = sound()
    late = frame["scheduled_ns"] > 0.9 * DURATION_S * 1e9
    frame.loc[late, ["due_ns", "sent_ns", "first_byte_ns", "done_ns"]] = NEVER
    frame.loc[late, "status"] = "unsent"
    verdict = verdict_of(frame)
    assert verdict.name == INVALID
    assert "delivered" in verdict.reasons
    assert verdict.errors == {"unsent": int(late.sum())}


def test_a_server_that_holds_every_connection_is_not_the_generators_fault() -> None:
    # Due but never sent: the server's doing. Called INVALID, its collapse would be thrown away.
    frame = sound()
    late = frame["scheduled_ns"] > 0.9 * DURATION_S * 1e9
    frame.loc[late, ["sent_ns", "first_byte_ns", "done_ns"]] = NEVER
    frame.loc[late, "status"] = "unsent"
    verdict = verdict_of(frame)
    assert verdict.name == SATURATED
    assert "errors" in verdict.reasons


def test_the_last_microseconds_do_not_void_a_short_trial() -> None:
    # One of 200 arrivals due 50 µs after the end would be 0.5 % undelivered.
    scheduled = np.linspace(0, DURATION_S * 1e9 - 10_000, 200).astype(np.int64)
    frame = samples.synthetic(scheduled, np.full(200, 1_000_000), lag_ns=60_000)
    assert delivered(frame, DURATION_S * 1e9).passed


@pytest.mark.parametrize(("lag_ms", "response_ms", "passed"), [(0.9, 2, True), (1.5, 2, False), (1.5, 40, True)])
def test_lag_is_judged_against_what_is_measured(lag_ms: float, response_ms: float, passed: bool) -> None:
    # 1.5 ms of lag spoil a response time of 2 ms and are nothing in one of 40 ms.
    scheduled = np.arange(1000) * 4_000_000
    frame = samples.synthetic(scheduled, np.full(1000, int(response_ms * 1e6)), lag_ns=int(lag_ms * 1e6))
    assert lag(frame).passed is passed


def test_lag_has_a_limit_when_nothing_succeeded() -> None:
    # With the median of nothing as the limit, a late generator would blame the server.
    frame = samples.synthetic(np.arange(100) * 1_000_000, np.full(100, 9_000_000), lag_ns=2_000_000, status="refused")
    assert not lag(frame).passed


def test_wakeups_in_lumps_spoil_the_arrival_process() -> None:
    # A generator with 20 ms ticks keeps the mean rate and sends bursts: queues, and percentiles, would be its own.
    frame = sound()
    tick = 20_000_000
    lumped = frame.assign(due_ns=(frame["scheduled_ns"] // tick + 1) * tick)
    assert not arrivals(lumped, DURATION_S * 1e9).passed
    assert arrivals(frame, DURATION_S * 1e9).passed


@pytest.mark.parametrize("rate", [420.0, 4200.0])
def test_a_delay_that_is_always_the_same_does_not_spoil_the_arrivals_of_a_short_trial(rate: float) -> None:
    """It moves arrivals over the edges of windows: of a trial's 420 one in seventy, and its index by 5 %.

    Trials of 1 s were thrown away for it, three times in a row.
    """
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scheduled = np.sort(rng.integers(0, 10**9, int(rate)))
        frame = samples.synthetic(scheduled, np.full(len(scheduled), 10**6), lag_ns=50_000)
        frame["due_ns"] += rng.exponential(15_000, len(scheduled)).astype(np.int64)
        alarms += not arrivals(frame, 1e9).passed
    assert alarms <= 2


def test_constant_arrivals_are_judged_too() -> None:
    # Their index of dispersion is 0: a tolerance relative to it would void every constant trial.
    scheduled = np.arange(2000) * 2_000_000
    frame = samples.synthetic(scheduled, np.full(2000, 1_000_000), lag_ns=50_000)
    assert arrivals(frame, DURATION_S * 1e9).passed


@pytest.mark.parametrize("rate", [50.0, 400.0, 4000.0])
def test_a_sound_generator_passes_the_gate_of_arrivals(rate: float) -> None:
    # False alarms would throw sound trials away (expected from simulation: well below 2 %).
    failed = sum(not arrivals(sound(rate, seed), DURATION_S * 1e9).passed for seed in range(60))
    assert failed <= stats.binom.ppf(0.995, 60, 0.02)


@pytest.mark.parametrize(
    ("generator", "host", "gate"),
    [
        (generator_of(cpu_s=3.2, wall_s=DURATION_S), host_of(), "engine_cpu"),
        (generator_of(run_delay_s=0.2, wall_s=DURATION_S), host_of(), "run_delay"),
        (generator_of(), host_of(steal_fraction=0.03), "host"),
    ],
)
def test_a_starved_generator_or_host_is_invalid(generator: Generator, host: Host, gate: str) -> None:
    # Its delays would be published as the server's.
    verdict = verdict_of(sound(), generator, host)
    assert (verdict.name, verdict.reasons) == (INVALID, (gate,))


def test_what_a_machine_cannot_measure_is_said_not_failed() -> None:
    # Kernels without schedstat, hosts without steal: every trial there would be INVALID, or the absence hidden.
    verdict = verdict_of(sound(), generator_of(run_delay_s=None), host_of(loadavg_1m=None, steal_fraction=None))
    assert verdict.name == VALID
    assert sum("not measured" in gate.text for gate in verdict.gates) == 2


# --- server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "verdict"), [(0.009, VALID), (0.012, SATURATED)])
@pytest.mark.parametrize("status", ["timeout", "http_503", "grpc_UNAVAILABLE", "reset"])
def test_shedding_is_saturation(share: float, verdict: str, status: str) -> None:
    # A server that refuses fast would have the best latency of all.
    frame = with_status(sound(), share, status)
    found = verdict_of(frame)
    assert found.name == verdict
    assert found.errors[status] == round(share * len(frame))


def test_everything_refused_is_saturated() -> None:
    # No success at all: there is no response time to judge, and still a verdict to give.
    verdict = verdict_of(sound().assign(status="refused"))
    assert verdict.name == SATURATED
    assert "errors" in verdict.reasons


def test_an_empty_trial_is_invalid() -> None:
    # Nothing was scheduled: VALID would let an arm without data into a figure.
    assert verdict_of(sound().iloc[:0]).name == INVALID


def test_a_bad_generator_outweighs_a_saturated_server() -> None:
    # Both signs at once: only one of them can be trusted to be the server's.
    frame = with_status(sound(), 0.5, "timeout")
    assert verdict_of(frame, generator_of(cpu_s=4.0, wall_s=4.0)).name == INVALID


def test_a_server_that_falls_behind_is_saturated() -> None:
    # Response times that grow by a tenth of the time that passes: a tenth of the requests is left over.
    frame = sound()
    verdict = verdict_of(frame.assign(done_ns=frame["done_ns"] + frame["scheduled_ns"] // 10))
    assert verdict.name == SATURATED
    assert verdict.reasons == ("in_flight", "response")
    assert re.search(r"by \+2\d\d \(at most \+25%, or \+29\)", verdict.text)


def done_at(frame: pd.DataFrame, done: Callable[[pd.DataFrame], Any]) -> pd.DataFrame:
    """The same rows with other ends, and no bytes before them."""
    return frame.assign(done_ns=done, first_byte_ns=done, sent_ns=frame["due_ns"])


SCRAMBLED: dict[str, Callable[[pd.DataFrame], Any]] = {
    "done before it was sent": lambda f: f.assign(done_ns=f["sent_ns"] - 1_000_000),
    "sent before it was due": lambda f: f.assign(sent_ns=f["due_ns"] - 1),
    "due before it was scheduled": lambda f: f.assign(due_ns=f["scheduled_ns"] - 1),
    "its first byte after its end": lambda f: f.assign(first_byte_ns=f["done_ns"] + 1),
    "a clock that steps back by an hour": lambda f: f.assign(
        done_ns=f["done_ns"].where(f.index < len(f) // 2, f["done_ns"] - 3_600_000_000_000)
    ),
    "given up before it was sent": lambda f: f.assign(first_byte_ns=NEVER, done_ns=f["sent_ns"] - 1, status="timeout"),
}


@pytest.mark.parametrize("how", SCRAMBLED)
def test_times_out_of_order_are_invalid(how: str) -> None:
    """They were VALID, with negative response times."""
    frame = sound()
    assert "clock" not in verdict_of(frame).reasons
    verdict = verdict_of(SCRAMBLED[how](frame))
    assert verdict.name == INVALID
    assert "clock" in verdict.reasons


def test_one_row_out_of_order_is_enough() -> None:
    frame = sound()
    frame["done_ns"] = frame["done_ns"].where(frame.index != 7, frame["sent_ns"] - 1)
    assert f"the times of 1 of {len(frame)} requests are out of order" in verdict_of(frame).text


def test_growth_that_is_no_queue_is_not_saturation() -> None:
    # Ten times the response time at the end, certainly; but not one request more in flight. It drifts, so that no
    # percentile of it is used.
    frame = done_at(sound(50.0), lambda f: f["scheduled_ns"] + 300_000 + f["scheduled_ns"] // 1500)
    verdict = verdict_of(frame)
    assert (verdict.name, verdict.reasons) == (UNSTEADY, ("steady",))


@pytest.mark.parametrize(("rate", "service_ms", "stall_ms"), [(50, 0.35, 0), (50, 0.35, 26), (2000, 0.2, 26)])
def test_light_trials_on_a_fast_server_are_not_saturated(rate: int, service_ms: float, stall_ms: int) -> None:
    """At most 1 %, with one stall or none; 1,000 cases of 1 s, binomial 99 % band."""
    rng = np.random.default_rng([rate, stall_ms])
    count = 0
    for _ in range(1000):
        scheduled: Ints = poisson(rng, rate, 1.0)
        service = (1e6 * service_ms * (0.85 + rng.exponential(0.15, len(scheduled)))).astype(np.int64)
        service[rng.integers(0, len(service))] += stall_ms * 1_000_000
        frame = pd.DataFrame({"scheduled_ns": scheduled, "done_ns": scheduled + lindley(scheduled, service)})
        count += not all(gate.passed for gate in saturated(frame.assign(status="ok"), 1e9))
    assert count <= stats.binom.ppf(0.995, 1000, 0.01)


def test_a_queue_that_one_stall_leaves_is_not_growth() -> None:
    """Beyond chance, by two and a half times the mean, and up to 400 requests; but most of the trial knows nothing."""
    means = np.array([1.0] * 15 + [80, 160, 240, 320, 400])
    assert growth("in_flight", "requests in flight", means, 20).passed
    assert not growth("in_flight", "requests in flight", np.linspace(1, 400, 20), 20).passed


def test_in_flight_is_the_exact_mean_over_time() -> None:
    # Little's law on it would be wrong by whatever it missed. Brute force: count at every 0.1 ms.
    frame = sound(50.0).assign(done_ns=lambda f: f["scheduled_ns"] + 300_000_000)
    in_flight, _ = batch_means(frame, DURATION_S * 1e9)
    grid = (np.arange(0.1 * DURATION_S, DURATION_S, 1e-4) + 5e-5) * 1e9
    a, d = frame["scheduled_ns"].to_numpy(), frame["done_ns"].to_numpy()
    counted = (a[:, None] <= grid) & (grid < d[:, None])
    assert in_flight == pytest.approx(counted.sum(axis=0).reshape(20, -1).mean(axis=1), abs=0.02)


OK = pd.Categorical(["ok"] * 6000)


def mm1(rng: np.random.Generator, rho: float, n: int) -> tuple[pd.DataFrame, float]:
    """Return the rows of an M/M/1 queue that starts empty, about n requests at 1 ms mean service; and its length, s."""
    duration_s = n / rho * 1e-3
    arrivals: Ints = poisson(rng, rho * 1e3, duration_s)
    done = arrivals + lindley(arrivals, rng.exponential(1e6, len(arrivals)).astype(np.int64))
    return pd.DataFrame({"scheduled_ns": arrivals, "done_ns": done, "status": OK[: len(done)]}), duration_s


def share_saturated(rho: float, n: int, cases: int) -> int:
    rng = np.random.default_rng([int(100 * rho), n])
    count = 0
    for _ in range(cases):
        frame, duration_s = mm1(rng, rho, n)
        count += not all(gate.passed for gate in saturated(frame, duration_s * 1e9))
    return count


@pytest.mark.parametrize(("rho", "n"), [(0.5, 2000), (0.7, 2000), (0.9, 4000)])
def test_stationary_queues_are_rarely_called_saturated(rho: float, n: int) -> None:
    # Every false alarm lowers a λ*. At most 5 % are allowed; 1,000 cases against the binomial 99 % band.
    assert share_saturated(rho, n, 1000) <= stats.binom.ppf(0.995, 1000, 0.05)


@pytest.mark.parametrize(("rho", "n"), [(1.1, 4000), (1.2, 2000), (1.5, 1000)])
def test_overloaded_queues_are_found(rho: float, n: int) -> None:
    # An overloaded trial called VALID would put a number that depends on the trial's length into a figure.
    assert share_saturated(rho, n, 1000) >= stats.binom.ppf(0.005, 1000, 0.97)


def whole_verdict(queue: pd.DataFrame, duration_s: float) -> str:
    """The verdict of every gate on the rows of a queue, sent by a generator that is never late."""
    response = (queue["done_ns"] - queue["scheduled_ns"]).to_numpy()
    frame = samples.synthetic(queue["scheduled_ns"].to_numpy(), response)
    return judge(frame, duration_s, generator_of(), host_of()).name


@pytest.mark.parametrize(
    ("requests", "rho", "most"), [(8, 1.5, 0.01), (20, 1.5, 0.01), (40, 1.5, 0.01), (90, 1.5, 0.05)]
)
def test_few_requests_do_not_make_an_overloaded_server_valid(requests: int, rho: float, most: float) -> None:
    """A server that does two requests a second, asked for three during 4 s, was VALID in every second trial."""
    rng = np.random.default_rng(20)
    valid = 0
    for _ in range(400):
        valid += whole_verdict(*mm1(rng, rho, requests)) == VALID
    assert valid <= stats.binom.ppf(0.995, 400, most)


@pytest.mark.parametrize("requests", [20, 50])
def test_few_requests_are_enough_for_a_server_that_mostly_has_none(requests: int) -> None:
    rng = np.random.default_rng(21)
    verdicts = [whole_verdict(*mm1(rng, 0.02, requests)) for _ in range(200)]
    assert np.mean([name == VALID for name in verdicts]) >= 0.95


@given(
    st.lists(st.tuples(st.integers(0, 100), st.floats(-1e6, 1e6)), min_size=3, max_size=30, unique_by=lambda p: p[0])
)
def test_growth_is_the_slope_of_least_squares(points: list[tuple[int, float]]) -> None:
    """Against the library's, with its standard error."""
    x, y = np.array(points, dtype=np.float64).T
    fit = stats.linregress(x, y)
    slope, error = slope_with_error(x, y)
    scale = 1e-6 * (1 + np.abs(y).max())
    assert slope == pytest.approx(float(fit.slope), rel=1e-6, abs=scale)
    assert error == pytest.approx(float(fit.stderr), rel=1e-6, abs=scale)


def test_one_rule_of_growth_holds_for_every_run() -> None:
    """A rule that knew the number of trials would find another λ* in a longer run."""
    assert GROWTH_ALPHA == 5e-5
    rng = np.random.default_rng(2)
    flat = [growth("in_flight", "requests in flight", rng.normal(10, 3, 20)) for _ in range(2000)]
    assert sum(not gate.passed for gate in flat) <= stats.binom.ppf(0.995, 2000, GROWTH_ALPHA / 2)
    rising = growth("in_flight", "requests in flight", np.arange(20) + rng.normal(10, 1, 20))
    assert not rising.passed
    assert "beyond chance" in rising.text


# --- steadiness ---


def warming(settles_at: float, start_ms: float = 20.0) -> pd.DataFrame:
    """A trial whose response time comes down until a share of it has passed; it does not grow."""
    frame = sound()
    left = np.clip(1 - frame["scheduled_ns"] / (settles_at * DURATION_S * 1e9), 0, 1)
    return frame.assign(done_ns=frame["done_ns"] + (left * start_ms * 1e6).astype("int64"))


@pytest.mark.parametrize("settles_at", [0.02, 0.2, 0.4])
def test_a_trial_that_settles_in_its_first_half_is_valid(settles_at: float) -> None:
    """Its percentiles rest on what came after."""
    verdict = verdict_of(warming(settles_at))
    assert verdict.name == VALID
    (gate,) = (gate for gate in verdict.gates if gate.name == "steady")
    assert gate.value is not None
    assert 0.8 * settles_at - 0.02 <= gate.value <= settles_at + 0.1


def test_a_trial_that_drifts_throughout_is_unsteady() -> None:
    """A p95 of it would be a number of the trial's length; and a server that never settles has not kept up."""
    frame = sound()
    falling = np.exp(-2 * frame["scheduled_ns"] / (DURATION_S * 1e9))
    verdict = verdict_of(done_at(frame, lambda f: f["scheduled_ns"] + (20e6 * falling).astype("int64")))
    assert (verdict.name, verdict.reasons) == (UNSTEADY, ("steady",))
    assert verdict.text == "UNSTEADY; the response time never settled (at most 50%)"
    (gate,) = (gate for gate in verdict.gates if gate.name == "steady")
    assert gate.value is None


CHANGES: dict[str, Any] = {
    "falls to a third": lambda u: 3 ** (1 - u),
    "rises to threefold": lambda u: 3**u,
    "rises until the end, from the half": lambda u: 3 ** np.maximum(0, 2 * u - 1),
    "rises linearly": lambda u: 1 + u,
    "steps up at 70 %": lambda u: np.where(u < 0.7, 1, 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("rate", [60.0, 800.0])
def test_a_drift_is_seen_whichever_way_it_goes(change: str, rate: float) -> None:
    """Also one that lasts to the trial's end, which leaves no later part that would look different."""
    frame = sound(rate)
    factor = CHANGES[change](frame["scheduled_ns"] / (DURATION_S * 1e9))
    response = (factor * (frame["done_ns"] - frame["scheduled_ns"])).astype("int64")
    assert verdict_of(done_at(frame, lambda f: f["scheduled_ns"] + response)).name == UNSTEADY


def test_a_burst_in_the_middle_is_no_drift() -> None:
    """Cut off with all before it, as MSER would, it would be missing in the percentile that it belongs to."""
    frame = sound()
    burst = frame["scheduled_ns"].between(0.52 * DURATION_S * 1e9, 0.6 * DURATION_S * 1e9)
    found = steady(frame.assign(done_ns=frame["done_ns"] + 50_000_000 * burst), DURATION_S)
    assert found.passed
    assert found.value is not None
    assert found.value <= 0.5


@pytest.mark.parametrize("settles_at", [0.6, 0.8])
def test_so_is_one_that_settles_too_late(settles_at: float) -> None:
    assert verdict_of(warming(settles_at)).name == UNSTEADY


def test_a_bad_generator_and_a_saturated_server_outweigh_unsteadiness() -> None:
    """Each says more: the one that nothing is known, the other that the server cannot do it."""
    frame = warming(0.8)
    assert verdict_of(frame, host=host_of(steal_fraction=0.5)).name == INVALID
    assert verdict_of(with_status(frame, 0.5, "timeout")).name == SATURATED


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_requests_to_see_a_drift_in_are_not_called_unsteady(n: int) -> None:
    frame = samples.synthetic(np.arange(n) * 1_000_000, np.arange(1, n + 1) * 5_000_000)
    assert steady(frame, DURATION_S).passed


@pytest.mark.parametrize(("rho", "n"), [(0.2, 250), (0.4, 250), (0.4, 1000), (0.2, 4000)])
def test_moderately_loaded_queues_are_rarely_called_unsteady(rho: float, n: int) -> None:
    """Each false alarm costs a lifetime its value. At most 2 % are allowed; 1,000 cases, binomial 99 % band."""
    rng = np.random.default_rng([int(100 * rho), n])
    count = 0
    for _ in range(1000):
        frame, duration_s = mm1(rng, rho, n)
        count += not steady(frame, duration_s).passed
    assert count <= stats.binom.ppf(0.995, 1000, 0.02)


# --- the generator's ceiling ---


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (0.8, True), (0.81, False), (1.2, False)])
def test_a_rate_near_the_generators_own_ceiling_is_invalid(share: float, passed: bool) -> None:
    # What the generator cannot do itself would be called a limit of the server.
    verdict = verdict_of(sound(), rate_per_s=share * 10_000, ceiling_per_s=10_000.0)
    assert (verdict.name == VALID) == passed
    assert verdict.reasons == (() if passed else ("ceiling",))


def test_a_ceiling_that_was_not_measured_is_said_not_failed() -> None:
    gate = next(g for g in verdict_of(sound(), ceiling_per_s=None).gates if g.name == "ceiling")
    assert gate.passed
    assert "not measured" in gate.text


# --- form ---------------------------------------------------------------------------------------------


@given(st.sampled_from(["ok", "timeout", "refused", "http_500", "unsent"]), st.integers(0, 30))
def test_a_verdict_survives_being_stored(status: str, n: int) -> None:
    # Read back from a manifest it must say the same, also where a value is not a number; JSON has no NaN.
    frame = samples.synthetic(np.arange(n) * 1_000_000, np.full(n, 5_000_000), status=status)
    verdict = verdict_of(frame)
    again = msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    assert again == verdict
    assert (verdict.name == VALID) == (verdict.reasons == ())


def test_the_text_names_what_decided() -> None:
    # "INVALID" alone sends the user to read the code.
    text = verdict_of(sound(), host=host_of(loadavg_1m=3.0, steal_fraction=0.2)).text
    assert "20.0%" in text
    assert "hypervisor" in text


def test_a_client_library_that_is_late_is_slow_not_void() -> None:
    """Where the client is what is measured, its lag is in its response times; unsent requests are its saturation."""
    frame = sound()
    late = samples.synthetic(
        frame["scheduled_ns"].to_numpy(), np.full(len(frame), 6_000_000), lag_ns=np.full(len(frame), 4_000_000)
    )
    assert verdict_of(late).name == INVALID
    told = {gate.name: gate.text for gate in verdict_of(late, generator_of(client="requests")).gates}
    assert told["lag"].endswith("; shown only, does not affect the verdict")
    assert verdict_of(late, generator_of(client="requests")).name == VALID
    held = frame.assign(due_ns=np.where(np.arange(len(frame)) % 10 == 0, NEVER, frame["due_ns"]))
    assert verdict_of(held, generator_of(client="requests")).name == SATURATED
    assert verdict_of(late, generator_of(client="requests"), host_of(steal_fraction=0.5)).name == INVALID


# --- closed loops -------------------------------------------------------------------------------------


def closed(n_per_s: float = 400.0, users: int = 8, response_ms: float = 2.0) -> pd.DataFrame:
    """Rows of users who are paced evenly, each ready when its last answer has come and its turn is there."""
    gap, count = users / n_per_s, int(DURATION_S * n_per_s / users)
    ready = np.sort(((np.arange(users)[:, None] / n_per_s + gap * np.arange(count)) * 1e9).astype(np.int64).ravel())
    jitter = np.random.default_rng(1).lognormal(0, 0.1, len(ready))
    return samples.synthetic(ready, (response_ms * 1e6 * jitter).astype(np.int64))


LOCUST = generator_of(client="locust")


def test_a_sound_closed_loop_is_valid_and_says_what_was_not_judged() -> None:
    verdict = verdict_of(closed(), LOCUST)
    assert verdict.name == VALID
    gates = {gate.name: gate for gate in verdict.gates}
    for name in ("lag", "arrivals", "in_flight", "response"):
        assert gates[name].value is None
        assert gates[name].text.startswith("not judged: ")
    assert (
        gates["delivered"].text == "the client sent 1600 of 1600 requests of the nominal rate (100.0%; at least 82.5%)"
    )


def test_users_who_do_not_reach_the_nominal_rate_are_saturated() -> None:
    """Their times would be shown as those of a load that was never there."""
    verdict = verdict_of(closed(n_per_s=300.0), LOCUST)
    assert (verdict.name, verdict.reasons) == (SATURATED, ("delivered",))
    assert verdict_of(closed(n_per_s=380.0), LOCUST).name == VALID


def test_users_of_a_server_that_hangs_are_saturated_not_void() -> None:
    """They send too few requests to judge, because the server answers none: that is its doing."""
    few = closed(n_per_s=8.0, response_ms=999.0).assign(status="timeout")
    assert len(few) < 40
    assert verdict_of(few, LOCUST).name == SATURATED
    assert verdict_of(few.iloc[:10], LOCUST, rate_per_s=2.0).name == INVALID, "nobody asked for enough"


def test_failures_and_the_host_are_judged_in_a_closed_loop_too() -> None:
    assert verdict_of(with_status(closed(), 0.02, "http_503"), LOCUST).reasons == ("errors",)
    assert verdict_of(closed(), LOCUST, host_of(steal_fraction=0.5)).name == INVALID


def test_a_client_without_a_nominal_rate_is_never_short_of_it() -> None:
    """SingleStream sends its next request when the last is answered: λ is no load that it could miss."""
    single = generator_of(client="loadgen-single")
    slow = closed(n_per_s=100.0, users=1, response_ms=9.0)
    verdict = verdict_of(slow, single)
    assert verdict.name == VALID
    assert verdict_of(slow, LOCUST).name == SATURATED
    gates = {gate.name: gate.text for gate in verdict.gates}
    for name in ("delivered", "enough"):
        assert gates[name].startswith("not judged: the client has no nominal rate")
    hangs = closed(n_per_s=1.0, users=1, response_ms=990.0).assign(status="timeout")
    assert (verdict_of(hangs, single).name, len(hangs)) == (SATURATED, 4), "not thrown away for its few requests"


def test_an_offline_load_that_waits_for_itself_is_valid_and_its_failures_count() -> None:
    """All its requests are there at once: the queue is the load, and says nothing about the server."""
    offline, n = generator_of(client="loadgen-offline"), int(400 * DURATION_S)
    rows = samples.synthetic(np.zeros(n, np.int64), np.arange(1, n + 1) * 5_000_000)
    assert verdict_of(rows, offline).name == VALID
    assert verdict_of(rows, generator_of(client="loadgen-server")).name != VALID
    assert verdict_of(with_status(rows, 0.02, "http_503"), offline).reasons == ("errors",)
