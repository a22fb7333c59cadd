"""Sizes of the protocol grid by profile."""

from collections.abc import Sequence
from typing import Any

from infscale.errors import one_of
from infscale.experiment.design.grid import Grid

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 1.1)
"""Rates of the grid as shares of the larger saturation rate of the protocols compared."""

PROFILES: dict[str, dict[str, Any]] = {
    "tiny": {"replicates": 1, "trial_s": 0.5, "fractions": (0.3, 0.6), "timeout_s": 1.0, "sensitivity": False},
    "quick": {},
    "full": {
        "replicates": 8,
        "trial_s": 60.0,
        "fractions": FRACTIONS,
        "timeout_s": 10.0,
        "fill_tail": True,
        "restart": True,
        "bisections": 2,
    },
}


def from_parameters(profile: str, **given: Any) -> Grid:
    """A profile's grid with the parameters that are not empty (``[]``, ``""``, 0, None) put in place.

    Raises:
        ConfigError: unknown profile, or a value that a grid cannot have.
    """
    one_of("profile", profile, PROFILES)
    chosen = {k: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in given.items()}
    return Grid(**{"profile": profile, **PROFILES[profile], **{k: v for k, v in chosen.items() if v is not None}})
