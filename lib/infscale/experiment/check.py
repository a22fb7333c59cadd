"""Finding out, before anything is deployed, what cannot be measured."""

from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.case import Case
from infscale.experiment.design.grid import Grid
from infscale.payloads import encoders as payloads
from infscale.payloads.limits import check_batch, check_gzip, check_http


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
    taker = case.front if (case.front, case.arm.protocol) in payloads.ENCODERS else case.framework
    known = payloads.taken(taker, case.arm.protocol, case.model or grid.model)
    encoding = case.arm.encoding or next(iter(known), "")
    if encoding not in known:
        raise ConfigError(
            f"{case.name}: encoding={encoding!r} is not one that {taker} takes over {case.arm.protocol}; "
            f"accepted: {', '.join(known)}"
        )
    check_http(taker, case.arm.http)
    check_gzip(taker, case.arm.protocol, gzip=case.arm.gzip)
    check_batch(taker, case.arm.protocol, encoding, case.model or grid.model, case.arm.batch)
