"""Planning: do service times measured on one replica say what more of them, behind a balancer, would do?"""

from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding

DEVICE = "device"
"""The model whose servers wait 10 ms for each request (:mod:`infscale.models.reference`)."""

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return replicas of a model that waits and of one that computes, behind Envoy, a block for each number of them.

    Blocks differ by the number of replicas, so that each is loaded at the same shares of what it can take. All stand
    behind Envoy, one replica too: its hop is then part of the times that are measured on one.
    """
    triton = [
        [_arm("triton", DEVICE, 1)],
        [_arm("triton", DEVICE, 2), _arm("triton", DEVICE, 2, "envoy-least-request")],
    ]
    if profile == "tiny":
        return triton
    four = _arm("triton", DEVICE, 4, "envoy-least-request")
    others = [[_arm("torchserve", DEVICE, count)] for count in (1, 2)]
    computing = [[_arm("triton", "cnn", count)] for count in (1, 2)]
    if profile == "quick":
        return [*triton, [four], *others, *computing]
    by_connection = [_arm("triton", DEVICE, count, "envoy-l4") for count in (2, 4)]
    return [
        triton[0],
        [*triton[1], by_connection[0]],
        [_arm("triton", DEVICE, 4), four, by_connection[1]],
        *others,
        [_arm("torchserve", DEVICE, 4)],
        *computing,
        [_arm("triton", "cnn", 4)],
    ]


def _arm(framework: str, model: str, replicas: int, balancer: str = "envoy-round-robin") -> Arm:
    return Arm("grpc", framework=framework, model=model, front="balanced", replicas=replicas, balancer=balancer)


FINDING = Finding(
    name="planning",
    question="Do service times measured on one replica say what more of them, behind a balancer, would do?",
    blocks=blocks,
    notebook="21-planning",
    sizes={
        "tiny": {"curve": 1},
        "quick": {"curve": 1, "requests": 150, "least": 3},
        "full": {"curve": 2},
    },
)
