"""Finding out, before anything is deployed, what cannot be measured."""

from infscale.deployment import FRAMEWORKS
from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.case import Case
from infscale.experiment.design.grid import Grid
from infscale.payloads import limits


def check(grid: Grid) -> None:
    """Find out what cannot be, before anything is deployed.

    Raises:
        ConfigError: a framework cannot take an encoding, a batch passes its message limit, two cases have one name, or
            a case is compared with one that is not there.
    """
    names = [case.name for case in grid.cases]
    first = [case.name for case in grid.cases if not case.against]
    if len(set(names)) < len(names):
        raise ConfigError(f"cases {names} must have different names")
    for case in grid.cases:
        if case.against:
            one_of(f"{case.name}: against", case.against, first)
        if case.front:
            one_of(f"{case.name}: front", case.front, FRONTS)
        _check_payload(grid, case)


def _check_payload(grid: Grid, case: Case) -> None:
    one_of(f"{case.name}: framework", case.framework, FRAMEWORKS)
    interface = (FRONTS[case.front].interface if case.front else None) or FRAMEWORKS[case.framework].interface
    arm = case.arm
    try:
        limits.check(
            interface,
            arm.protocol,
            case.model or grid.model,
            encoding=arm.encoding,
            batch=arm.batch,
            http=arm.http,
            gzip=arm.gzip,
        )
    except ConfigError as error:
        raise ConfigError(f"{case.name}: {error}") from error
