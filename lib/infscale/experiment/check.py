"""Checking a design before anything is deployed."""

from infscale.deployment import FRAMEWORKS
from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.design import Design
from infscale.experiment.design.labels import labels
from infscale.load import loadgen_client
from infscale.models import reference
from infscale.payloads import limits
from infscale.vocabulary import LOADGEN, OTHER


def check(design: Design) -> None:
    """Find out what cannot be measured, before anything is deployed.

    Raises:
        ConfigError: a framework, model or front is unknown, a framework cannot take an encoding, or a batch passes its
            message limit.
        MissingError: an arm's client is not installed.
    """
    if any(arm.client in LOADGEN for arm in design.every_arm()):
        loadgen_client.check_installed()
    for arm, label in zip(design.every_arm(), labels(design.every_arm()), strict=True):
        if arm.framework != OTHER:
            one_of(f"{label}: framework", arm.framework, FRAMEWORKS)
            reference.model(arm.model)
            _check_payload(arm, label)
        if arm.front:
            one_of(f"{label}: front", arm.front, FRONTS)


def _check_payload(arm: Arm, label: str) -> None:
    interface = (FRONTS[arm.front].interface if arm.front else None) or FRAMEWORKS[arm.framework].interface
    try:
        limits.check(
            interface,
            arm.protocol,
            arm.model,
            encoding=arm.encoding,
            batch=arm.batch,
            http=arm.http,
            gzip=arm.gzip,
        )
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
