"""Checking a design before anything is deployed."""

from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import SWEEP, Design
from infscale.experiment.design.labels import labels
from infscale.models import reference
from infscale.payloads import encoders as payloads
from infscale.payloads.limits import check_batch, check_gzip, check_http
from infscale.vocabulary import FRAMEWORKS, OTHER


def check(design: Design) -> None:
    """Find out what cannot be measured, before anything is deployed.

    Raises:
        ConfigError: a framework, model or front is unknown, a framework cannot take an encoding, a batch passes its
            message limit, or the arms of a block of a sweep need more than one deployment.
    """
    for arm, label in zip(design.every_arm(), labels(design.every_arm()), strict=True):
        if arm.framework != OTHER:
            one_of(f"{label}: framework", arm.framework, FRAMEWORKS)
            reference.model(arm.model)
            _check_payload(arm, label)
        if arm.front:
            one_of(f"{label}: front", arm.front, FRONTS)
    if design.rates == SWEEP:
        for block in design.blocks():
            if len(design.deployments(block)) > 1:
                names = ", ".join(labels([design.arms[arm] for arm in block]))
                raise ConfigError(f"{names}: arms of a sweep that are compared must share one deployment")


def _check_payload(arm: Arm, label: str) -> None:
    taker = arm.front if (arm.front, arm.protocol) in payloads.ENCODERS else arm.framework
    known = payloads.taken(taker, arm.protocol, arm.model)
    encoding = arm.encoding or next(iter(known), "")
    if encoding not in known:
        raise ConfigError(
            f"{label}: encoding={encoding!r} is not one that {taker} takes over {arm.protocol}; "
            f"accepted: {', '.join(known)}"
        )
    check_http(taker, arm.http)
    check_gzip(taker, arm.protocol, gzip=arm.gzip)
    check_batch(taker, arm.protocol, encoding, arm.model, arm.batch)
