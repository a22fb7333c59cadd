"""Inference Scaling: how protocol, payload and deployment change a served model's performance.

The names below are imported when they are first used, so that ``import infscale`` costs next to nothing::

    import infscale

    with infscale.deploy("triton", "mlp") as endpoint:
        print(endpoint.rest, endpoint.grpc)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infscale.deployment import deploy as deploy
    from infscale.deployment.endpoint import Endpoint as Endpoint
    from infscale.deployment.own.attach import attach as attach
    from infscale.errors import InfscaleError as InfscaleError
    from infscale.experiment.design.arm import Arm as Arm
    from infscale.records.runs import Run as Run
    from infscale.records.runs import load_run as load_run

__version__ = "0.1.0"

NAMES = {
    "Arm": "infscale.experiment.design.arm",
    "Endpoint": "infscale.deployment.endpoint",
    "InfscaleError": "infscale.errors",
    "Run": "infscale.records.runs",
    "attach": "infscale.deployment.own.attach",
    "deploy": "infscale.deployment",
    "load_run": "infscale.records.runs",
}
"""Name → module that defines it; the same names stand above, for type checkers."""


def __getattr__(name: str) -> object:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *NAMES])
