"""Designs and labels: if these fail, a run measures something else than was meant, or two arms look like one."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.errors import ConfigError
from infscale.experiment.check import check
from infscale.experiment.design.arm import (
    CLIENTS,
    DEPLOYMENT_FACTORS,
    FACTORS,
    FRONT_LEVELS,
    STORES,
    Arm,
)
from infscale.experiment.design.design import P95, SATURATION, STREAMED, TOOLS, Contrast, Design, against_first
from infscale.experiment.design.labels import BALANCERS, ENCODINGS, labels
from infscale.experiment.design.time_plan import check_budget, first_look, least_s, lifetimes, round_s, time_plan
from infscale.findings.finding import Finding
from infscale.vocabulary import FRAMEWORK_NAMES, HTTP, OTHER, PICKS, PROTOCOLS

REST, GRPC = Arm("rest", framework="triton"), Arm("grpc", framework="triton")


def design(**changes: Any) -> Design:
    """A design of two arms that are compared."""
    return Design(**({"finding": "test", "arms": (REST, GRPC), "contrasts": (Contrast(0, 1),)} | changes))


# ------------------------------------------------------------------------------------------------ arms


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"protocol": "soap"}, r"protocol='soap' is not known; accepted: grpc, rest"),
        ({"client": "grpcio"}, r"client='grpcio' is not known; accepted: loadgen-offline, .*, requests, wire"),
        ({"protocol": "grpc", "client": "requests"}, "accepted: grpcio, .*, wire"),
        ({"client": "locust", "repeat": 0.5}, "client='locust' supports neither repeat nor zipf"),
        ({"client": "loadgen-single", "zipf": 1.1}, "client='loadgen-single' supports neither repeat nor zipf"),
        ({"client": "locust-poisson", "gzip": True}, "client='locust-poisson' supports neither gzip nor HTTP/2"),
        ({"http": "3"}, "http='3' is not known; accepted: 1.1, 2"),
        ({"protocol": "grpc", "http": "2"}, "gRPC is always on HTTP/2"),
        ({"client": "requests", "http": "2"}, "client='requests' supports neither gzip nor HTTP/2; use client='wire'"),
        ({"client": "requests", "gzip": True}, "client='requests' supports neither gzip nor HTTP/2; use client='wire'"),
        ({"protocol": "grpc", "client": "grpcio", "gzip": True}, "client='grpcio' supports no gzip; use client='wire'"),
        ({"client": "requests", "reuse": False}, "supports neither pick nor reuse=False; use client='wire'"),
        ({"pick": "best"}, "pick='best' is not known; accepted: , power_of_two, round_robin"),
        ({"connections": -1}, "connections=-1 is not a number of connections; accepted: 1 or more"),
        ({"batch": 0}, "batch=0 is not a number of rows"),
        ({"repeat": 1.5}, "repeat=1.5 is not a fraction; accepted: 0 to 1"),
        ({"repeat": math.nan}, "repeat=nan is not a fraction"),
        ({"zipf": 0.0}, "zipf=0.0 is not an exponent"),
        ({"repeat": 0.5, "zipf": 1.0}, "exclude each other"),
        ({"repeat": 0.5, "batch": 2}, "repeat and zipf need batch=1"),
        ({"front": "proxy"}, "front='proxy' is not known; accepted: , balanced, buffered, cache, edge, network"),
        ({"store": "redis"}, "store='redis' belongs to front='cache', not to front=''"),
        ({"front": "cache", "store": "disk"}, "store='disk' is not known; accepted: , memory, redis"),
        ({"replicas": 2}, "replicas, balancer and slow_ms belong to front='balanced'"),
        ({"front": "balanced", "replicas": 0}, "replicas=0 is not a number of servers"),
        ({"front": "balanced", "slow_ms": -1.0}, "slow_ms=-1.0 is not a delay"),
        ({"tls": True}, "tls belong to front='network'"),
        ({"front": "network", "rate_mbit": 0.0}, "rate_mbit=0.0 is not a rate"),
        ({"front": "network", "delay_ms": math.inf}, "delay_ms=inf is not a delay"),
        ({"batch": "4"}, "batch='4' has another type: expected `int`, got `str`"),
        ({"gzip": 1}, "gzip=1 has another type: expected `bool`, got `int`"),
        (
            {"messages": 20, "framework": "triton"},
            "model='mlp' sends one reply and no stream; accepted: model='stream'",
        ),
        (
            {"model": "stream", "framework": "triton"},
            "model='stream' answers with streams; accepted: the number of its",
        ),
        ({"messages": -1}, "messages=-1 is not a number of messages; accepted: 0 or more"),
        ({"messages": 0, "framework": "triton", "model": "stream"}, "messages=0 is not .*; accepted: 1 or more"),
        ({"messages": 2, "interval_ms": -1.0}, "interval_ms=-1.0: accepted: 0 or more"),
        ({"interval_ms": 5.0}, "message_bytes and interval_ms are of streams; give messages"),
        (
            {"messages": 2, "client": "requests"},
            "client='requests': a client library times whole replies and no messages",
        ),
        ({"messages": 2, "client": "locust"}, "client='locust': a load tool times whole replies and no messages"),
        ({"messages": 2, "gzip": True}, "streams have no batch, gzip, repeat, zipf or cache"),
        ({"messages": 2, "front": "edge"}, "neither an edge nor a caching gateway"),
        ({"options": (("a", math.nan),)}, "options: a=nan is not a finite number"),
        ({"options": (("a", None),)}, "options=.* has another type"),
    ],
)
def test_a_level_that_cannot_be_is_named_with_the_accepted_ones(levels: dict[str, Any], message: str) -> None:
    """Else it is found out at three in the morning, or a run stores what cannot be read."""
    with pytest.raises(ConfigError, match=message):
        Arm(**({"protocol": "rest"} | levels))


def test_a_level_may_be_typed_in_any_way_that_means_the_same() -> None:
    """A design of a notebook would differ from itself after it was stored, and be measured anew."""
    typed: dict[str, Any] = {"delay_ms": 5, "batch": np.int64(4), "options": [["a", 1]]}
    arm = Arm("rest", front="network", **typed)
    assert arm == Arm("rest", front="network", delay_ms=5.0, batch=4, options=(("a", 1),))
    assert msgspec.json.decode(msgspec.json.encode(arm), type=Arm) == arm


def test_arms_of_one_deployment_share_a_server() -> None:
    assert REST.deployment == GRPC.deployment == Arm("rest", framework="triton", batch=16, http="1.1").deployment
    assert REST.deployment != Arm("rest", framework="triton", cache=True).deployment
    assert set(DEPLOYMENT_FACTORS) < set(FACTORS)


def test_a_closed_loop_is_one_by_its_client() -> None:
    """A loop that is taken for open gets arrivals, a saturation rate and gates that it does not have."""
    closed = {name for name in CLIENTS if CLIENTS[name].closed}
    assert closed == {"locust", "locust-poisson", "loadgen-single", "loadgen-offline"}
    assert Arm("grpc", client="locust").closed
    assert not Arm("grpc", client="loadgen-server").closed
    assert not REST.closed
    assert [name for name, one in CLIENTS.items() if not one.rated] == ["loadgen-single"]
    assert [name for name, one in CLIENTS.items() if one.at_once] == ["loadgen-offline"]


def test_a_closed_loop_is_compared_with_an_open_one_in_one_finding_alone() -> None:
    """A closed loop asks a slow server less: its times beside those of an open loop flatter the server."""
    arms = (REST, msgspec.structs.replace(REST, client="locust"))
    with pytest.raises(
        ConfigError, match=r"wire and locust are a closed and an open loop|locust and wire are a closed"
    ):
        design(arms=arms, contrasts=(Contrast(1, 0),))
    design(arms=arms, contrasts=())
    assert design(finding=TOOLS, arms=arms, contrasts=(Contrast(1, 0),)).contrasts
    both = tuple(msgspec.structs.replace(arm, client="locust") for arm in (REST, GRPC))
    assert design(arms=both).contrasts
    with pytest.raises(ConfigError, match="sensitivity: client='locust' is a closed loop"):
        design(sensitivity=arms[1:])


def test_a_closed_loop_has_no_saturation_rate_to_compare() -> None:
    """It cannot be asked for more than it answers, so that a search would end at the largest rate."""
    both = [msgspec.structs.replace(arm, client="locust") for arm in (REST, GRPC)]
    with pytest.raises(ConfigError, match=r"saturation_per_s of a closed loop \(client='locust'\): it cannot be asked"):
        design(arms=tuple(both), contrasts=(Contrast(1, 0, SATURATION),))
    arms, contrasts = against_first(both, [REST, GRPC])
    assert {(one.arm, one.metric) for one in contrasts} == {(1, P95), (3, P95), (3, SATURATION)}
    assert Finding("own", "?", blocks=[both]).design().contrasts == (Contrast(1, 0, P95),)
    assert len(arms) == 4


def test_every_factor_is_a_column() -> None:
    levels = Arm("rest", options=(("threads", 2), ("fast", True))).levels()
    assert tuple(levels) == FACTORS
    assert levels["options"] == "threads=2 fast=True"


# ---------------------------------------------------------------------------------------------- labels


def test_labels_are_made_of_what_differs() -> None:
    """What is common to all arms would hide what is compared."""
    assert labels([REST, GRPC]) == ["REST", "gRPC"]
    assert labels([Arm("rest", framework=name) for name in FRAMEWORK_NAMES]) == list(FRAMEWORK_NAMES.values())
    assert labels([REST, msgspec.structs.replace(REST, batch=16)]) == ["1 row", "16 rows"]
    assert labels([GRPC, msgspec.structs.replace(GRPC, connections=1)]) == ["gRPC", "1 connection"]
    assert labels([REST]) == ["REST"]


def test_an_embedded_server_says_so() -> None:
    """The same arm is of the real TensorFlow Serving elsewhere: a reader must see which it was."""
    arms = [Arm("rest", framework="tfserving"), Arm("rest", framework="torchserve")]
    assert labels(arms, ["tfserving-embedded", "torchserve"]) == ["TF Serving API (embedded)", "TorchServe"]
    assert labels(arms, ["tfserving", "torchserve"]) == ["TF Serving API", "TorchServe"]


def test_a_simulated_delay_is_never_left_out() -> None:
    """A reader would take the slow replica for a real one."""
    slow = {"framework": "triton", "front": "balanced", "replicas": 2, "slow_ms": 20.0}
    arms = [Arm("grpc", balancer=name, **slow) for name in ("envoy-l4", "nginx")]  # type: ignore[arg-type]
    assert labels(arms) == ["L4, one simulated slower by 20 ms", "nginx, one simulated slower by 20 ms"]
    assert labels(arms[:1]) == ["one simulated slower by 20 ms"]


amounts = st.floats(0.5, 1e6)
LEVELS: dict[str, st.SearchStrategy[Any]] = {
    "protocol": st.sampled_from(PROTOCOLS),
    "encoding": st.sampled_from(["", *ENCODINGS, "other"]),
    "connections": st.integers(0, 300),
    "batch": st.integers(1, 64),
    "gzip": st.booleans(),
    "client": st.sampled_from(["wire", "requests", "grpcio"]),
    "repeat": st.none() | st.floats(0, 1),
    "zipf": st.none() | st.floats(0.1, 3),
    "http": st.sampled_from(HTTP),
    "pick": st.sampled_from(["", *PICKS]),
    "reuse": st.booleans(),
    "framework": st.sampled_from([*FRAMEWORK_NAMES, OTHER]),
    "model": st.sampled_from(["mlp", "cnn", "image"]),
    "front": st.sampled_from(FRONT_LEVELS),
    "store": st.sampled_from(STORES),
    "cache": st.booleans(),
    "replicas": st.integers(1, 8),
    "balancer": st.sampled_from([*BALANCERS, "client"]),
    "slow_ms": st.just(0.0) | amounts,
    "rate_mbit": st.none() | amounts,
    "delay_ms": st.just(0.0) | amounts,
    "linked": st.booleans(),
    "tls": st.booleans(),
    "options": st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2) | st.booleans()), max_size=2).map(
        tuple
    ),
}


@st.composite
def arms(draw: st.DrawFn) -> Arm:
    """Draw an arm that differs from the default in a few factors."""
    names = draw(st.sets(st.sampled_from(sorted(set(LEVELS) - {"protocol"})), max_size=5))
    levels = {"protocol": draw(LEVELS["protocol"]), **{name: draw(LEVELS[name]) for name in sorted(names)}}
    try:
        return Arm(**levels)
    except ConfigError:
        return Arm("rest", framework="triton")


@settings(max_examples=60)
@given(st.lists(arms(), min_size=2, max_size=8, unique=True))
def test_arms_that_differ_have_different_labels(several: Sequence[Arm]) -> None:
    """Else two arms are one line of a figure, or one row of a table."""
    found = labels(several)
    assert len(set(found)) == len(found)
    assert all(found)


@given(arms())
def test_an_arm_survives_being_stored(arm: Arm) -> None:
    assert msgspec.json.decode(msgspec.json.encode(arm), type=Arm) == arm


# --------------------------------------------------------------------------------------------- designs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ()}, r"arms=\[\] makes an empty design"),
        ({"arms": (REST, REST)}, "arms REST, REST: two of them are equal"),
        ({"sensitivity": (REST,)}, "two of them are equal"),
        ({"sensitivity": (Arm("rest", framework="torchserve"),)}, "no arm of the design has the deployment"),
        ({"contrasts": (Contrast(0, 2),)}, "does not name two of 2 arms"),
        ({"contrasts": (Contrast(1, 1),)}, "does not name two of 2 arms"),
        ({"contrasts": (Contrast(0, 1), Contrast(1, 0))}, "arm 0 is compared with a reference, and is one itself"),
        ({"contrasts": (Contrast(0, 1), Contrast(0, 1))}, "one of them is named twice, and would share the error with"),
        ({"contrasts": (Contrast(0, 1, "response_p50_ms"),)}, "metric='response_p50_ms' is not known; accepted: "),
        ({"beside": ("weather",)}, "beside='weather' is not known; accepted: staleness"),
        ({"least": 0}, "least=0 is too few; accepted: 1 or more"),
        ({"least": True}, "least=True has another type"),
        ({"requests": 0}, "requests=0 is too few; accepted: 1 or more"),
        ({"budget_s": 0.0}, "budget_s=0.0 is not a duration; accepted: seconds above 0"),
        ({"budget_s": "long"}, "budget_s='long' has another type: expected `float`, got `str`"),
        ({"trial_s": -1}, "trial_s=-1.0 is not a duration; accepted: seconds above 0"),
        ({"trial_s": 1e10}, r"trial_s=10000000000.0 is not a duration; accepted: at most 1e\+09 seconds"),
        ({"timeout_s": math.nan}, "timeout_s=nan is not a duration; accepted: seconds above 0"),
        ({"most_per_s": 0}, "most_per_s=0.0 is not an arrival rate; accepted: a number of requests/s above 0"),
        ({"curve": -1}, "curve=-1 is negative; accepted: 0 or more"),
        ({"most": -1}, "most=-1 is negative; accepted: 0 or more"),
        ({"seed": -1}, "seed=-1 is negative; accepted: 0 or more"),
        ({"finding": ""}, "finding='' is not a name for files"),
        ({"finding": "batch/16"}, "finding='batch/16' is not a name for files; accepted: a name without '/'"),
        ({"profile": "../quick"}, r"profile='\.\./quick' is not a name for files"),
    ],
)
def test_a_bad_size_is_named_with_what_is_accepted(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        design(**changes)


def test_an_arm_has_one_reference_with_which_it_shares_its_arrivals() -> None:
    """The arms of two references were never measured at one rate: their ratio would compare two loads."""
    three = (REST, GRPC, msgspec.structs.replace(REST, batch=16))
    with pytest.raises(ConfigError, match="arm 2 has two references"):
        design(arms=three, contrasts=(Contrast(2, 0), Contrast(2, 1)))
    with pytest.raises(ConfigError, match="arm 1 is compared with a reference, and is one itself"):
        design(arms=three, contrasts=(Contrast(1, 0), Contrast(2, 1)))
    assert design(arms=three, contrasts=(Contrast(2, 0), Contrast(2, 0, SATURATION))).blocks() == [[0, 2], [1]]


def test_a_design_that_was_typed_with_lists_is_the_same() -> None:
    typed: dict[str, Any] = {"arms": [REST, GRPC], "contrasts": [Contrast(0, 1)], "budget_s": 60, "trial_s": 4}
    other = design(budget_s=60.0, trial_s=4.0, seed=3)
    assert design(**typed, seed=3) == other
    assert design(**typed).digest() == other.digest()
    assert msgspec.json.decode(msgspec.json.encode(other), type=Design) == other


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trial_s", 5.0),
        ("budget_s", 601.0),
        ("least", 5),
        ("most", 9),
        ("requests", 251),
        ("curve", 1),
        ("arms", (GRPC, REST)),
        ("contrasts", ()),
        ("beside", ("staleness",)),
    ],
)
def test_a_design_with_another_size_or_factor_has_another_digest(name: str, value: object) -> None:
    """An interrupted run of it would be continued with trials of another."""
    assert design(**{name: value}).digest() != design().digest()


def test_every_design_has_draws_of_its_own_and_is_still_the_same_question() -> None:
    """Runs with one seed share their luck; and a seed that told designs apart would begin every run anew."""
    seeds = {design().seed for _ in range(20)}
    assert len(seeds) == 20
    assert {design().digest() for _ in range(3)} == {design(seed=7).digest()}
    stored = design()
    assert msgspec.json.decode(msgspec.json.encode(stored), type=Design).seed == stored.seed


def test_blocks_and_deployments_group_the_arms() -> None:
    torchserve = [Arm(protocol, framework="torchserve") for protocol in PROTOCOLS]
    every, contrasts = against_first([REST, GRPC], torchserve)
    one = design(arms=every, contrasts=contrasts, sensitivity=(msgspec.structs.replace(torchserve[0], batch=4),))
    assert one.blocks() == [[0, 1], [2, 3]]
    assert one.deployments() == [[0, 1], [2, 3]]
    assert [one.block(number) for number in range(5)] == [0, 0, 2, 2, 2]
    assert one.deployments([4, 0]) == [[4], [0]]
    assert one.protocols() == ("rest", "grpc")
    assert one.frameworks() == ("triton", "torchserve")


def test_arms_of_a_block_and_blocks_on_one_server_are_measured_in_one_lifetime() -> None:
    """Compared over two lifetimes, a difference may be the server's luck; one server at a time is all a core can do."""
    torchserve = [Arm(protocol, framework="torchserve") for protocol in PROTOCOLS]
    batches = [msgspec.structs.replace(REST, batch=16), msgspec.structs.replace(GRPC, batch=16)]
    cases: list[tuple[list[list[Arm]], list[list[int]]]] = [
        ([[REST, GRPC], torchserve], [[0, 1], [2, 3]]),
        ([[REST, torchserve[0]], [GRPC, torchserve[1]]], [[0, 1, 2, 3]]),
        ([[REST, GRPC], torchserve, batches], [[0, 1, 4, 5], [2, 3]]),
        ([[REST], [torchserve[0]], [torchserve[1], GRPC]], [[0, 1, 2, 3]]),
        ([[REST]], [[0]]),
    ]
    for blocks, groups in cases:
        every, contrasts = against_first(*blocks)
        assert design(arms=every, contrasts=contrasts).groups() == groups


def test_each_arm_is_in_one_group_with_its_block_and_its_deployment() -> None:
    rng = np.random.default_rng(4)
    every = [
        Arm(protocol, framework=name, batch=batch)
        for name in ("triton", "torchserve", "tfserving")
        for protocol in PROTOCOLS
        for batch in (1, 2, 4)
    ]
    for _ in range(50):
        mixed = [every[k] for k in rng.permutation(len(every))[: rng.integers(2, 12)]]
        cut = int(rng.integers(1, len(mixed)))
        arms, contrasts = against_first(mixed[:cut], mixed[cut:])
        one = design(arms=arms, contrasts=contrasts)
        groups = one.groups()
        assert sorted(arm for group in groups for arm in group) == list(range(len(arms)))
        place = {arm: k for k, group in enumerate(groups) for arm in group}
        for together in (*one.blocks(), *one.deployments()):
            assert len({place[arm] for arm in together}) == 1


def test_an_arm_of_the_sensitivity_check_varies_the_arm_that_is_most_like_it() -> None:
    """Divided by another protocol's or batch's time, a default would seem to decide what the factor does."""
    batched = msgspec.structs.replace(GRPC, batch=16)
    checks = (
        msgspec.structs.replace(GRPC, connections=1),
        msgspec.structs.replace(batched, connections=1),
        msgspec.structs.replace(REST, gzip=True),
        msgspec.structs.replace(REST, batch=4),
    )
    one = design(arms=(REST, GRPC, batched), contrasts=(Contrast(1, 0),), sensitivity=checks)
    assert [one.varied(number) for number in range(3, 7)] == [1, 2, 0, 0]
    assert [one.block(number) for number in range(3, 7)] == [0, 2, 0, 0]
    assert one.checked_with([1]) == [3]
    assert one.checked_with([0, 2]) == [4, 5, 6]


def test_a_trial_at_a_low_rate_has_requests_enough_for_its_percentile() -> None:
    one = design(trial_s=1.0, requests=250)
    assert one.duration_s(10.0) == 25.0
    assert one.duration_s(1000.0) == 1.0
    assert one.duration_s(10.0, search=True) * 10.0 == pytest.approx(500), "growth needs more requests to be seen"
    assert design(requests=50).duration_s(10.0, search=True) * 10.0 == pytest.approx(150), "unless all is small"
    assert design(requests=2000).duration_s(10.0, search=True) * 10.0 == pytest.approx(2000)


# -------------------------------------------------------------------------------------------- time and budget


def test_a_longer_design_has_a_longer_plan() -> None:
    """A user decides by it whether to start a run over night."""
    short = design(budget_s=600.0)
    text = time_plan(short)
    assert "budget 10 min" in text
    assert "in all, roughly" in text
    assert f"the first look at the contrasts is at {lifetimes(short)} lifetimes" in text
    assert f"{lifetimes(short)} lifetimes of " in text
    for changes in ({"trial_s": 60.0}, {"least": 9}, {"curve": 4}):
        assert least_s(design(**changes)) > least_s(short)
    assert lifetimes(design(budget_s=6000.0, most=5)) == 5
    for changes in ({"budget_s": 6000.0}, {"trial_s": 0.5}):
        assert lifetimes(design(**{"budget_s": 600.0, **changes})) > lifetimes(short)


def test_the_plan_of_a_model_that_waits_holds_its_longer_trials() -> None:
    """The plan of predictions said half of the time that was needed: a replica that waits 10 ms does 100/s at most."""
    slow, fast = (
        design(arms=(Arm("grpc", framework="triton", model=one),), contrasts=(), requests=150)
        for one in ("device", "mlp")
    )
    trials_s = 150 / 20 + 150 / 40 + 3 * 450 / 100
    assert round_s(slow) - round_s(fast) == pytest.approx(trials_s - 5 * slow.trial_s)


def test_a_budget_that_is_too_small_is_refused_with_the_least_one() -> None:
    """Two lifetimes in the time of four would end in the small hours with nothing to say."""
    needed = least_s(design())
    check_budget(design(budget_s=needed + 1))
    with pytest.raises(ConfigError, match="budget_s=30 is too little: 4 lifetimes of each of 1 group of") as caught:
        check_budget(design(budget_s=30.0))
    least = float(str(caught.value).split("accepted: ")[1].split()[0])
    assert needed <= least < needed + 1
    check_budget(design(budget_s=least))


@pytest.mark.parametrize(("bought", "least", "look"), [(2, 4, 4), (7, 4, 7), (500, 4, 40), (500, 60, 60)])
def test_the_first_look_is_at_what_the_budget_buys_but_early_in_a_long_run(bought: int, least: int, look: int) -> None:
    assert first_look(bought, least) == look


# ------------------------------------------------------------------------- checked before anything is deployed


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm("rest", framework="kserve"), "framework='kserve' is not known; accepted: tfserving, torchserve, triton"),
        (Arm("rest", framework="triton", model="vgg"), "accepted: cnn, device, image, mlp, noop, photo"),
        (Arm("rest", framework="tfserving", encoding="raw"), "accepted: b64, json"),
        (Arm("rest", framework="triton", encoding="json", batch=20_000), "limit of 64 MiB; accepted with json: 1 to"),
        (Arm("rest", framework="torchserve", gzip=True), "takes no compressed body"),
        (Arm("rest", framework="triton", http="2"), "does not speak HTTP/2 in clear text"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_deployed(arm: Arm, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(design(arms=(arm, GRPC)))


# --------------------------------------------------------------------------------------------- streams

TOKENS = Arm("rest", "sse", messages=20, message_bytes=32, interval_ms=5.0, framework="triton", model="stream")
TOKENS_GRPC = msgspec.structs.replace(TOKENS, protocol="grpc", encoding="")


def test_streams_are_compared_by_their_messages() -> None:
    """Their response times are mostly the time that the model takes between messages."""
    _, contrasts = against_first([TOKENS, TOKENS_GRPC], [REST, GRPC])
    assert [(one.arm, one.metric) for one in contrasts] == [
        (3, P95),
        (3, SATURATION),
        *((1, metric) for metric in STREAMED),
    ]


def test_a_stream_and_a_single_reply_are_not_compared() -> None:
    arms = (TOKENS, REST)
    with pytest.raises(ConfigError, match="are a stream and a single reply; accepted: both of one kind"):
        design(arms=arms, contrasts=(Contrast(0, 1),))
    with pytest.raises(ConfigError, match=r"gap_p99_ms is of streams; accepted: response_p95_ms, saturation_per_s"):
        design(contrasts=(Contrast(0, 1, "gap_p99_ms"),))


def test_a_time_limit_that_no_stream_can_keep_is_refused() -> None:
    """Every request would be a timeout, and the run would say that no rate is kept up with."""
    slow = msgspec.structs.replace(TOKENS, interval_ms=100.0)
    with pytest.raises(ConfigError, match=r"timeout_s=1 is too short for 20 messages 100 ms apart, which take 2 s"):
        design(arms=(slow,), contrasts=())
    assert design(arms=(slow,), contrasts=(), timeout_s=2.5)


def test_labels_of_streams_say_size_interval_and_whose_speed_it_is() -> None:
    fast = msgspec.structs.replace(TOKENS, message_bytes=4_000, interval_ms=0.0)
    assert labels([TOKENS, fast]) == ["32 B, 5 ms apart", "4 kB, at the backend's own speed"]
    assert labels([fast, msgspec.structs.replace(fast, protocol="grpc", encoding="")]) == [
        "REST, at the backend's own speed",
        "gRPC, at the backend's own speed",
    ]
    assert labels(
        [Arm("rest", framework=OTHER, model="a", messages=0), Arm("grpc", framework=OTHER, model="b", messages=0)]
    )
