"""Gates on a trial that another tool made: which of ours its result file lets us judge."""

import msgspec

from infscale.experiment.design.arm import EVERY_CLIENT
from infscale.records.gate import IMPORTED, Gate

UNKNOWN = {
    "own_limits": "whether the client ran out of descriptors, ports or memory is not in the file",
    "engine_cpu": "the generator's CPU time is not in the file",
    "run_delay": "for how long the generator waited for a core is not in the file",
    "ceiling": "how much the generator can send at most was not measured",
    "host": "what else ran on the machine is not in the file",
    "server": "whether the server was there to the end is not in the file",
}
"""Gates that no tool's file lets us judge, and why."""

USERS = dict.fromkeys(
    ("lag", "arrivals", "delivered", "in_flight", "response"),
    "its users wait for answers, so that there is no schedule, and a queue ends at its users",
)
"""The same of users who send again after an answer."""

K6 = {
    "lag": "when a request was scheduled is not in the file",
    "arrivals": "when a request was scheduled is not in the file",
    "in_flight": "whether arrivals waited for answers is not in the file",
    "response": "whether arrivals waited for answers is not in the file",
    "clock": "the times of a request are reckoned back from its end, and are in order for that",
}
"""The same of k6. ``delivered`` is judged: an iteration that k6 dropped is a request that was not sent."""

OF_CLIENT = {"guidellm": UNKNOWN, "guidellm-users": UNKNOWN | USERS, "k6": UNKNOWN | K6}
"""What cannot be judged, and why, by the client."""


def of_a_file(generator: list[Gate], server: list[Gate], client: str) -> tuple[list[Gate], list[Gate], list[Gate]]:
    """Return the gates on the generator and on the server without those that cannot be judged, and a remark on these.

    Args:
        generator, server: the gates of an open loop, by :func:`infscale.records.gates.verdict.judge`.
        client: one of :data:`infscale.experiment.design.arm.IMPORTED`.
    """
    unknown = OF_CLIENT[client]
    tool = EVERY_CLIENT[client].tool
    sound, keeping_up = (
        [_unjudged(gate, unknown[gate.name]) if gate.name in unknown else gate for gate in gates]
        for gates in (generator, server)
    )
    text = (
        f"{len(unknown)} gates cannot be judged from {tool}'s file ({', '.join(unknown)}): the verdict is that of the "
        "others, and claims no more"
    )
    return sound, keeping_up, [Gate(IMPORTED, False, float(len(unknown)), 0.0, text)]


def _unjudged(gate: Gate, why: str) -> Gate:
    return msgspec.structs.replace(gate, passed=True, value=None, text=f"not judged: {why}")
