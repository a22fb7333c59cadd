"""Client-side load balancing: the engine with several targets, one of which is picked for each request."""

import random
from array import array
from collections.abc import Mapping, Sequence

from infscale.load.engine import status
from infscale.load.engine.interfaces import CodecFactory, Io, Limits, Rows
from infscale.load.engine.loop import NO_REASONS, Engine
from infscale.load.engine.pool import Pool
from infscale.load.engine.status import Finished


class Balanced(Engine):
    """Runs one schedule over several targets and picks one when a request is due; a failing target stays in use.

    Args:
        targets: how many there are.
        pick: "round_robin" takes the targets in turn; "power_of_two" draws two distinct targets and takes the one with
            fewer requests without an outcome, or the first drawn if equal (M. Mitzenmacher, The Power of Two Choices
            in Randomized Load Balancing, IEEE Trans. Parallel Distrib. Syst. 12(10), 2001).
        seed: of the draws.
    """

    def __init__(
        self,
        io: Io,
        codec: CodecFactory,
        schedule: "array[int]",
        choice: "array[int]",
        limits: Limits,
        targets: int,
        pick: str,
        seed: int = 1,
        rows: Rows | None = None,
    ) -> None:
        super().__init__(io, codec, schedule, choice, limits, targets, rows)
        self._two = pick == "power_of_two" and targets > 1
        self._random = random.Random(seed)
        self.picked = array("h", [-1]) * len(schedule)

    def _dispatch(self, i: int, pool: Pool) -> None:
        pools = self._pools
        if self._two:
            pool, other = self._random.sample(pools, 2)
            if other.outstanding < pool.outstanding:
                pool = other
        else:
            pool = pools[i % len(pools)]
        self.picked[i] = pool.target
        pool.outstanding += 1
        super()._dispatch(i, pool)

    def _settle(
        self, finished: Sequence[Finished], now: int, reasons: Mapping[int, str] = NO_REASONS, otherwise: str = ""
    ) -> None:
        outcome = self.rows.outcome
        for token, *_ in finished:
            if outcome[token] == status.PENDING:
                self._pools[self.picked[token]].outstanding -= 1
        super()._settle(finished, now, reasons, otherwise)

    def share_by_target(self) -> list[int]:
        """Return how many requests each target was picked for."""
        return [self.picked.count(pool.target) for pool in self._pools]
