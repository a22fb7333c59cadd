"""TODO"""

from dataclasses import dataclass
from typing import Any

from infscale.experiment.trial import Arm


@dataclass(frozen=True)
class Case:
    """One arm of a finding.

    Attributes:
        name: what figures and tables call it.
        framework: what serves it.
        arm: how it is asked.
        against: the case that it is compared with; empty for one that others are compared with. The two and all others
            against the same one are a block: they get the same arrivals, at a common rate.
        front: what stands between load and server, a key of :data:`infscale.deployment.fronts.FRONTS`; empty for nothing.
        options: of the deployment, names and values.
        model: a reference model; empty for the grid's.
    """

    name: str
    framework: str
    arm: Arm
    against: str = ""
    front: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    model: str = ""

    @property
    def block(self) -> str:
        """The name of the case that this one's block is compared with."""
        return self.against or self.name

    @property
    def deployment(self) -> tuple[Any, ...]:
        """Equal for cases that can be measured on one running server."""
        return self.framework, self.model, self.front, self.options
