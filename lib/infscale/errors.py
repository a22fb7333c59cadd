"""Errors that a user can act on.

::

    InfscaleError
    ├── ConfigError       a value is wrong; the message names it and the accepted ones
    │   └── (also a ValueError)
    ├── MissingError      a program or package is not installed; the message says how to get it
    ├── DeploymentError   a server did not start, died, or does not answer; carries the end of its log
    │   └── ServerLostError   it ended under load, or no longer answers
    ├── EngineError       the load engine itself failed
    └── DataError         a stored file is missing, truncated, or of another schema or machine

    KeyboardInterrupt
    └── Interrupt         Ctrl-C, or a notebook's stop button; the message says what was kept, and how to go on

A notebook shows all of them as one line, without a traceback.
"""

import math
import numbers
import re
from collections.abc import Collection, Iterable


class _OneLine(BaseException):
    """Shows itself in a notebook as its message: where in this package it was raised helps nobody who reads it."""

    def _render_traceback_(self) -> list[str]:  # what IPython asks an exception for
        return [f"{type(self).__name__}: {self}"]


class InfscaleError(_OneLine, Exception):
    """Base of every error that this package raises on purpose."""


class Interrupt(_OneLine, KeyboardInterrupt):
    """Work was ended by Ctrl-C or by a notebook's stop button; the message says what was kept, and how to go on.

    It is an exception, so that nothing takes what was ended for the whole, or goes on with the next.
    """


class ConfigError(InfscaleError, ValueError):
    """A parameter has a value that cannot be used."""


class MissingError(InfscaleError):
    """Something that the deployment needs is not installed."""


class DeploymentError(InfscaleError):
    """A server failed to start or stopped answering.

    ``reason`` is the message without the last lines of the server's log, which ``log_tail`` holds.
    """

    def __init__(self, message: str, log_tail: str = "") -> None:
        self.reason, self.log_tail = message, log_tail
        tail = f"\n--- end of the server's log ---\n{log_tail.rstrip()}" if log_tail.strip() else ""
        super().__init__(message + tail)


class ServerLostError(DeploymentError):
    """A server ended under load, or lives and does not answer any more."""


class EngineError(InfscaleError):
    """The load engine ended without a result."""


class DataError(InfscaleError):
    """Stored data cannot be read or must not be combined."""


def one_of(name: str, value: str, accepted: Iterable[str]) -> str:
    """Return ``value`` if it is among ``accepted``.

    Raises:
        ConfigError: naming the parameter, the value and the accepted ones.
    """
    choices = sorted(accepted)
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not known; accepted: {', '.join(choices)}")
    return value


MAX_DURATION_S = 1e9
"""Thirty years: int64 nanoseconds hold nine times as much."""


def check_rate(rate_per_s: float, name: str = "rate") -> float:
    """Return an arrival rate λ (1/s) that is a positive finite number.

    Raises:
        ConfigError: not a number, infinite, zero or negative.
    """
    if not is_number(rate_per_s) or rate_per_s <= 0:
        raise ConfigError(f"{name}={rate_per_s!r} is not an arrival rate; accepted: a number of requests/s above 0")
    return float(rate_per_s)


def check_duration(duration_s: float, name: str = "duration_s") -> float:
    """Return a duration that is a positive finite number of seconds.

    Raises:
        ConfigError: not a number, infinite, zero, negative, or above :data:`MAX_DURATION_S`.
    """
    if not is_number(duration_s) or not 0 < duration_s <= MAX_DURATION_S:
        long = is_number(duration_s) and duration_s > 0
        accepted = f"at most {MAX_DURATION_S:g} seconds" if long else "seconds above 0"
        raise ConfigError(f"{name}={duration_s!r} is not a duration; accepted: {accepted}")
    return float(duration_s)


def check_share(share: float, name: str) -> float:
    """Return a share of a rate that is a positive finite number; it may be above 1.

    Raises:
        ConfigError: not a number, infinite, zero or negative.
    """
    if not is_number(share) or share <= 0:
        raise ConfigError(f"{name}: {share!r} is not a share; accepted: numbers above 0")
    return float(share)


def is_number(value: object) -> bool:
    """Return whether ``value`` is a finite real number (not a truth value)."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


SET_BY_CLIENTS = ("connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade")
"""Names of headers that a client writes itself."""


def check_header(shown: str, name: str, value: str, own: Collection[str] = SET_BY_CLIENTS) -> str:
    """Return the name of a header in lower case.

    Raises:
        ConfigError: it is no header, or one of ``own``, which the client writes; ``shown`` stands for it in the
            message, because a value may be secret.
    """
    key = name.lower()
    token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", key)  # RFC 9110, 5.6.2
    if not token or not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
        raise ConfigError(f"{shown} is not a header; accepted: 'Name: value', in one line")
    if key in own:
        raise ConfigError(f"{shown}: {name} is set by the engine")
    return key
