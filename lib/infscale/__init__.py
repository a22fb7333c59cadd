"""Inference Scaling: how protocol, payload and deployment change a served model's performance.

The names below are imported when they are first used, so that ``import infscale`` costs next to nothing::

    import infscale

    with infscale.deploy("triton", "mlp") as endpoint:
        print(endpoint.rest, endpoint.grpc)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infscale.analysis.tables import tabulate as tabulate
    from infscale.deployment import deploy as deploy
    from infscale.deployment.endpoint import Endpoint as Endpoint
    from infscale.deployment.own.attach import attach as attach
    from infscale.deployment.own.attach import attached as attached
    from infscale.errors import InfscaleError as InfscaleError
    from infscale.experiment.design.arm import Arm as Arm
    from infscale.experiment.design.design import Design as Design
    from infscale.experiment.explore import explore as explore
    from infscale.experiment.measure import measure as measure
    from infscale.findings.finding import Finding as Finding
    from infscale.records.runs import Run as Run
    from infscale.records.runs import load_run as load_run
    from infscale.report.beside import compare_runs as compare_runs
    from infscale.report.listing import runs_table as runs_table
    from infscale.report.results import save as save

__version__ = "0.1.0"

NAMES = {
    "Arm": "infscale.experiment.design.arm",
    "Design": "infscale.experiment.design.design",
    "Endpoint": "infscale.deployment.endpoint",
    "Finding": "infscale.findings.finding",
    "InfscaleError": "infscale.errors",
    "Run": "infscale.records.runs",
    "attach": "infscale.deployment.own.attach",
    "attached": "infscale.deployment.own.attach",
    "compare_runs": "infscale.report.beside",
    "deploy": "infscale.deployment",
    "explore": "infscale.experiment.explore",
    "load_run": "infscale.records.runs",
    "measure": "infscale.experiment.measure",
    "runs_table": "infscale.report.listing",
    "save": "infscale.report.results",
    "tabulate": "infscale.analysis.tables",
}
"""Name → module that defines it; the same names stand above, for type checkers."""


def __getattr__(name: str) -> object:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *NAMES])
