"""The first lifetime's rough search for each arm's λ*, which sets the rates of a run; and the cost of its requests."""

import math
from collections import Counter

import numpy as np

from infscale.deployment.endpoint import Endpoint, check_answers
from infscale.errors import ConfigError, MissingError, ServerLostError
from infscale.experiment.design.arm import CLIENTS
from infscale.experiment.design.design import FEWEST, SHARES
from infscale.experiment.session import RESTARTS, Session, first_line
from infscale.experiment.settle import drain
from infscale.experiment.trial import check_client, payload_of
from infscale.load.codec_cost import cpu_us, decoding, encoded
from infscale.records import samples
from infscale.records.gate import INVALID, UNSTEADY, VALID, Verdict
from infscale.records.manifest import Pilot, TrialManifest

FIRST_RATE = 100.0
"""The first rate, requests/s."""

FIRST_BYTES_PER_S = 50e6
"""Largest load of the first trial, bytes/s: a server that is given gigabytes at once may not come back."""

NEAR = 2.6
"""Ratio of neighbouring rates on the way up and down. The search ends when the rate that did not keep up is at most
this multiple of the one that did: the search for λ* that follows finds the rest."""

LEAP = 1.5
"""The second rate is at least so many requests in the median response time of the first: one that takes 1 ms on an idle
server is answered at 1,500/s by most."""

TRIAL_S, MOST_TRIALS = 0.8, 14
"""Length of a trial, s, if that is enough requests; most trials of an arm."""

SLOWEST = 0.2
"""The rate below which nothing is tried, requests/s."""

TRANSIENT_GATES = {"host", "lag", "run_delay", "arrivals", "steady", "enough"}
"""Gates that can fail through a short disturbance of the machine, at any rate."""


def known(session: Session, arm: int) -> bool:
    """Return whether an arm's rough λ* is known, or was given up."""
    return arm in session.manifest.pilot or arm in session.manifest.lost or arm in session.manifest.skipped


def find(session: Session, endpoint: Endpoint, number: int, losses: "Counter[int]") -> None:
    """Find roughly where one arm saturates, and what its requests cost the client; store both in the manifest.

    Raises:
        ServerLostError: the server was lost; an arm under which that happens again and again is given up first.
    """
    arm = session.design.arms[number]
    try:
        check_client(arm.client)
        endpoint.scheme(arm.protocol, arm.http)
    except (ConfigError, MissingError) as error:  # another server of this framework, or machine, would take it
        session.manifest.skipped[number] = first_line(error)
        session.say(f"{session.labels[number]}: left out: {session.manifest.skipped[number]}")
        return
    own = endpoint.own is not None
    plain = own or arm.streams  # the numbers in a stream's request cost nothing, and its messages are not decoded
    payload, encode = (payload_of(endpoint, arm), None) if plain else encoded(endpoint, arm)
    differences = {} if own else check_answers(endpoint)
    try:
        first = min(FIRST_RATE, FIRST_BYTES_PER_S / max(1, len(payload.bodies[0]), arm.message_bytes))
        if endpoint.streams_at_once and arm.stream_s:  # beyond, each waits for those before it
            first = min(first, endpoint.streams_at_once / arm.stream_s)
        session.warm(endpoint, arm, first, most=1)  # the searches that follow go on warming it
        find_rate = throughput if arm.closed else bracket
        low, high = find_rate(session, endpoint, number, first)
        drain(endpoint)
    except ServerLostError as error:
        losses[number] += 1
        if losses[number] > RESTARTS:
            session.manifest.lost.append(number)
            session.manifest.skipped[number] = first_line(error)
            session.say(f"{session.labels[number]}: left out: {session.manifest.skipped[number]}")
        raise
    session.manifest.pilot[number] = Pilot(
        implementation=endpoint.implementation,
        saturation_per_s=float(f"{np.sqrt(low * high):.4g}"),
        bracket_per_s=(low, high),
        encode_us=cpu_us(encode) if encode else None,
        decode_us=None if plain else cpu_us(decoding(endpoint, payload)),
        differences={name: value if math.isfinite(value) else None for name, value in differences.items()},
        ready_s=round(endpoint.ready_s, 3),
    )
    session.save()
    what = "at most" if arm.closed else "λ* near"
    session.say(f"{session.labels[number]}: {what} {session.manifest.pilot[number].saturation_per_s:.0f} requests/s")


def rough_per_s(session: Session, arm: int) -> float:
    """Return what the first lifetime found of an arm's λ*, requests/s; ∞ of an arm whose λ* is not searched."""
    low, high = session.manifest.brackets.get(arm, {}).get(0, (None, None))
    if low and high:
        return math.sqrt(low * high)
    known = session.manifest.pilot.get(arm)
    return known.saturation_per_s if known else math.inf


def set_rates(session: Session) -> None:
    """Set the rates of each block, once all of its arms are known or left out: moderate ones, and those of its curve.

    The moderate rates are :data:`SHARES` of the smallest λ*, as the first lifetime found it; the curve goes on from
    there, at equal steps of the logarithm, to a tenth above the largest.
    """
    design, pilots = session.design, session.manifest.pilot
    for block in design.blocks():
        name, rough = design.block(block[0]), [rough_per_s(session, arm) for arm in block if arm in pilots]
        if name not in session.manifest.rates_per_s and rough and all(known(session, arm) for arm in block):
            moderate = [share * min(rough) for share in SHARES]
            top = min(1.1 * max(rough), design.most_per_s)
            curve = np.geomspace(moderate[-1], top, design.curve + 1)[1:]
            session.manifest.rates_per_s[name] = [_three_digits(rate, design.most_per_s) for rate in moderate]
            session.manifest.curve_per_s[name] = [_three_digits(rate, design.most_per_s) for rate in curve]
    session.save()


def _three_digits(rate: float, most: float) -> float:
    return min(float(f"{rate:.3g}"), most)


def bracket(session: Session, endpoint: Endpoint, arm: int, first: float = FIRST_RATE) -> tuple[float, float]:
    """Return the largest rate that kept up and the smallest that did not, requests/s.

    The rate is multiplied or divided by :data:`NEAR` until both are known. Where they are further apart after a leap,
    rates near the throughput that was seen under overload are tried. Where the largest rate of the design is kept up
    with, both are that rate.
    """
    most = session.design.most_per_s
    rate, low, high, guess = min(first, most), 0.0, 0.0, 0.0
    for step in range(MOST_TRIALS):
        drain(endpoint)
        manifest = _pilot_trial(session, endpoint, arm, rate, step)
        if _counts_as_kept_up(manifest.judged):
            low = rate
            if low >= high:  # what was seen there before was a disturbance
                high, guess = 0.0, 0.0
        else:
            guess = guess if high else _completed_per_s(session, manifest)
            high = rate
        if low >= most:
            return most, most
        if not high:
            leap = _requests_in_response_time(session, manifest) if not step else 0.0
            rate = min(float(f"{max(low * NEAR, LEAP * leap):.4g}"), most)
        elif not low:
            if rate < SLOWEST:
                return rate / NEAR, high
            if step:  # the first rate is tried once more before the search goes down
                rate = float(f"{rate / NEAR:.4g}")
        elif high / low <= NEAR:
            break
        else:
            inside = [r for r in (guess * NEAR**0.5, guess / NEAR**0.5) if low * 1.05 < r < high / 1.05]
            rate = float(f"{inside[0] if guess and inside else np.sqrt(low * high):.4g}")
    return low or high / NEAR, max(low, high)


def throughput(session: Session, endpoint: Endpoint, arm: int, first: float = FIRST_RATE) -> tuple[float, float]:
    """Return what a closed loop gets answered when none of its users waits, requests/s, as both ends of a bracket.

    The rate is multiplied by :data:`NEAR` until the users reach it no longer, at two rates: a first one may have met a
    disturbance. A client that has no nominal rate gets two trials.
    """
    rate, most, short, rated = first, 0.0, 0, CLIENTS[session.design.arms[arm].client].rated
    for step in range(MOST_TRIALS):
        drain(endpoint)
        reached = _completed_per_s(session, _pilot_trial(session, endpoint, arm, rate, step))
        most, short = max(most, reached), short + (reached < rate / NEAR or not rated)
        if short > 1 or rate >= session.design.most_per_s:
            break
        rate = min(float(f"{rate * NEAR:.4g}"), session.design.most_per_s)
    if not most:
        raise ServerLostError(f"{session.labels[arm]}: no request was answered in the first trials")
    return most, most


def _pilot_trial(session: Session, endpoint: Endpoint, arm: int, rate: float, step: int) -> TrialManifest:
    """Return the manifest of a pilot trial, from disk if it is there."""
    trial_id = f"pilot-{session.name(arm)}-{rate:.0f}-{step}"
    stored = session.stored(trial_id)
    if stored is not None and not (stored.server.died or stored.server.stopped):
        return stored
    duration = max(min(TRIAL_S, session.design.trial_s), FEWEST / rate)
    return session.run(endpoint, trial_id, session.plan(arm, rate, (0, step), duration, phase="pilot"))


def _requests_in_response_time(session: Session, manifest: TrialManifest) -> float:
    """Return the inverse of the median response time of a trial's successes, 1/s; 0 if there is none."""
    rows = samples.read(session.folder / "trials" / f"{manifest.trial_id}.parquet")
    good = rows[rows["status"] == "ok"]
    return 1e9 / float((good["done_ns"] - good["scheduled_ns"]).median()) if len(good) else 0.0


def _completed_per_s(session: Session, manifest: TrialManifest) -> float:
    """Return the successes per second of a trial, from its first request to its last response."""
    rows = samples.read(session.folder / "trials" / f"{manifest.trial_id}.parquet")
    good = rows[rows["status"] == "ok"]
    return len(good) / (float(good["done_ns"].max()) / 1e9) if len(good) else 0.0


def _counts_as_kept_up(verdict: Verdict) -> bool:
    """Return whether a pilot trial was VALID, or INVALID by a passing disturbance rather than by its rate.

    UNSTEADY counts as kept up: of the few requests of a pilot trial nobody can say whether they were steady.

    A generator that fails otherwise has met its own ceiling: no rate above can be measured either way.
    """
    return verdict.name in (VALID, UNSTEADY) or (verdict.name == INVALID and verdict.failed <= TRANSIENT_GATES)
