"""How evenly replicas share the load (Jain's index), and what each further one adds (Gunther's law)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from infscale.errors import ConfigError

Numbers = Sequence[float] | npt.NDArray[np.float64]


def jain(shares: Numbers) -> float:
    """Return Jain's fairness index of what n replicas got: (Σx)² / (n Σx²).

    1 when all got the same, 1/n when one got all. NaN where a share is unknown or nothing was shared.

    Source: R. Jain, D. Chiu and W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource
    Allocation in Shared Computer Systems", DEC-TR-301 (1984).

    Raises:
        ConfigError: no share, or a negative one.
    """
    x = np.asarray(shares, dtype=float)
    if not x.size or (x < 0).any():
        raise ConfigError(f"shares={list(shares)} cannot be judged; accepted: one count ≥ 0 for each replica")
    most = x.max()
    if not most > 0:  # NaN, too
        return float("nan")
    x = x / most  # so that no square overflows or vanishes
    return float(x.sum() ** 2 / (x.size * (x**2).sum()))


@dataclass(frozen=True)
class Usl:
    """A fit of the Universal Scalability Law.

    Attributes:
        rate_per_s: λ, the capacity of one replica by the fit, requests/s.
        contention: σ, the share of the work that replicas cannot do at the same time.
        coherence: κ, what each pair of replicas costs by having to agree, as a share of the work.
        residual: root mean square of the relative differences from the points.
        exact: whether there are at most three distinct numbers of replicas, so that the fit has no error estimate.
        note: that, in words; empty if there are more.
    """

    rate_per_s: float
    contention: float
    coherence: float
    residual: float
    exact: bool
    note: str

    def capacity(self, replicas: Numbers) -> npt.NDArray[np.float64]:
        """Return the capacity (requests/s) of each number of replicas by the law."""
        return _law(np.asarray(replicas, dtype=float), self.rate_per_s, self.contention, self.coherence)


def _law(n: npt.NDArray[np.float64], rate: float, sigma: float, kappa: float) -> npt.NDArray[np.float64]:
    return np.asarray(rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)), dtype=float)


def usl(replicas: Numbers, capacity: Numbers) -> Usl:
    """Fit C(n) = λn / (1 + σ(n−1) + κn(n−1)) to the capacity (requests/s) of n replicas, with λ, σ, κ ≥ 0.

    Least squares of relative differences, as a capacity's error grows with it. N. J. Gunther, Guerrilla Capacity
    Planning, Springer 2007, chapters 4 to 6; λ as in his later form with a fitted capacity of one.

    Raises:
        ConfigError: not as many replicas as capacities, none, below one replica, or a capacity that is not above 0.
    """
    n, c = np.asarray(replicas, dtype=float), np.asarray(capacity, dtype=float)
    if n.shape != c.shape or not n.size or not (n >= 1).all() or not ((c > 0) & np.isfinite(c)).all():
        raise ConfigError(
            f"replicas={list(replicas)}, capacity={list(capacity)} cannot be fitted; accepted: as many of both, "
            "replicas ≥ 1 and capacities above 0"
        )
    unit = float((c / n).max())  # scales λ to about 1
    start = (1.0, 0.01, 0.001)

    def differences(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(_law(n, p[0] * unit, p[1], p[2]) / c - 1, dtype=float)

    fitted = least_squares(differences, start, bounds=(0, np.inf), x_scale=0.1)
    points = len(np.unique(n))
    exact = points <= len(start)
    note = f"fitted to only {points} points, so it has no error estimate" if exact else ""
    rate, sigma, kappa = (float(value) for value in fitted.x)
    return Usl(rate * unit, sigma, kappa, float(np.sqrt(np.mean(fitted.fun**2))), exact, note)
