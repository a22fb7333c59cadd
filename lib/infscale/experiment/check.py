"""Checking a design before anything is deployed."""

from infscale.deployment import FRAMEWORKS, check_model
from infscale.deployment.fronts import FRONTS
from infscale.errors import ConfigError, one_of
from infscale.experiment.design.arm import CLIENTS, IMPORTED, Arm
from infscale.experiment.design.design import Design
from infscale.experiment.design.labels import labels
from infscale.experiment.trial import plan_of
from infscale.models import stream
from infscale.payloads import limits
from infscale.vocabulary import OTHER


def check(design: Design) -> None:
    """Find out what cannot be measured, before anything is deployed.

    Raises:
        ConfigError: a framework, model or front is unknown, a client makes no load here, a framework cannot take an
            encoding, or a batch passes its message limit.
    """
    for arm, label in zip(design.every_arm(), labels(design.every_arm()), strict=True):
        if arm.client in IMPORTED:
            raise ConfigError(
                f"{label}: client={arm.client!r} makes no load here, its result files are imported; accepted: "
                f"{', '.join(CLIENTS)}"
            )
        if arm.framework != OTHER:
            one_of(f"{label}: framework", arm.framework, FRAMEWORKS)
            _check_model(arm, label)
        if arm.front:
            one_of(f"{label}: front", arm.front, FRONTS)


def _check_model(arm: Arm, label: str) -> None:
    """Check that the framework serves the model, and takes its requests."""
    try:
        check_model(FRAMEWORKS[arm.framework], arm.model)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
    if arm.model != stream.NAME:
        _check_payload(arm, label)
        return
    one_of(f"{label}: front of model={arm.model!r}", arm.front, ("", "balanced", "buffered", "network"))
    try:
        plan_of(arm)
        one_of("encoding", arm.encoding, ("", FRAMEWORKS[arm.framework].interface.streams[arm.protocol].way))
        limits.check_http(FRAMEWORKS[arm.framework].interface, arm.http)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error


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
