"""The reference model that answers with a stream of messages, at known times."""

from dataclasses import dataclass

from infscale.errors import ConfigError

NAME = "stream"
"""Its name, as it is served."""
LEAST_BYTES = 32
"""Least size of a message, bytes: what it begins with takes 27."""
_LONGEST_US = 3_600 * 10**6
_LARGEST = 16 << 20


@dataclass(frozen=True)
class StreamPlan:
    """What a request asks the model for.

    A message is text (ASCII): its index, from 0, in six digits, the time just before it was sent, in nineteen (ns of
    CLOCK_MONOTONIC of the server's machine), and letters up to its size; :func:`read` reads it. The i-th message is due
    i intervals after the model got the request.

    Attributes:
        count: number of messages.
        size: of a message, bytes.
        interval_us: between messages, µs; 0 is as fast as the server can.
        fail_after: the model fails after so many messages; None if it does not.
    """

    count: int = 20
    size: int = 32
    interval_us: int = 5_000
    fail_after: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 999_999:
            raise ConfigError(f"count={self.count} is no number of messages; accepted: 0 to 999999")
        if not LEAST_BYTES <= self.size <= _LARGEST:
            raise ConfigError(f"size={self.size} is no size of a message; accepted: {LEAST_BYTES} to {_LARGEST} bytes")
        if not 0 <= self.interval_us <= _LONGEST_US:
            raise ConfigError(f"interval_us={self.interval_us} is no interval; accepted: 0 to {_LONGEST_US} µs")
        if self.fail_after is not None and not 0 <= self.fail_after <= self.count:
            raise ConfigError(f"fail_after={self.fail_after} never comes; accepted: 0 to count={self.count}, or None")

    def fields(self) -> dict[str, int]:
        """Return the plan as requests carry it: whole numbers by name; a model that does not fail has −1."""
        fail_after = -1 if self.fail_after is None else self.fail_after
        return {"count": self.count, "size": self.size, "interval_us": self.interval_us, "fail_after": fail_after}

    @property
    def duration_s(self) -> float:
        """Return the least time from the first message to the last, s."""
        return max(0, self.count - 1) * self.interval_us / 1e6


def read(message: bytes) -> tuple[int, int]:
    """Return a message's index, and the time just before it was sent, ns of the server's CLOCK_MONOTONIC.

    Raises:
        ValueError: it is none of this model's messages.
    """
    return int(message[:6]), int(message[7:26])
