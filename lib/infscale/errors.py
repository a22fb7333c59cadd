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
"""

from collections.abc import Iterable


class InfscaleError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(InfscaleError, ValueError):
    """A parameter has a value that cannot be used."""


class MissingError(InfscaleError):
    """Something that the deployment needs is not installed."""


class DeploymentError(InfscaleError):
    """A server failed to start or stopped answering.

    ``log_tail`` holds the last lines of its log; they are part of the message.
    """

    def __init__(self, message: str, log_tail: str = "") -> None:
        self.log_tail = log_tail
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
