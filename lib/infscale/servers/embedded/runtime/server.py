"""The parts of the server that a request uses: the models, a way to run them, and the counters."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infscale.servers.asgi.status import Code
from infscale.servers.embedded.runtime import metrics
from infscale.servers.embedded.runtime.metrics import Metrics
from infscale.servers.embedded.runtime.models import Models
from infscale.servers.embedded.runtime.servable import Servable, Signature
from infscale.servers.embedded.runtime.tensors import Array


class Runs(Protocol):
    """Runs a signature on arrays, alone or in a batch with others."""

    async def run(
        self, signature: Signature, inputs: dict[str, Array], wanted: Sequence[str], timeout: float | None
    ) -> dict[str, Array]:
        """Return the wanted outputs, or all."""
        ...


@dataclass(frozen=True)
class Server:
    """The parts of one server; without ``metrics`` nothing is counted."""

    models: Models
    runner: Runs
    metrics: Metrics | None = None

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        inputs: dict[str, Array],
        wanted: Sequence[str],
        timeout: float | None,
    ) -> dict[str, Array]:
        """Return the outputs of a signature, and count how long that took."""
        started = time.perf_counter()
        outputs = await self.runner.run(signature, inputs, wanted, timeout)
        if self.metrics is not None:
            micros = (time.perf_counter() - started) * 1e6
            self.metrics.sample(metrics.RUNTIME_LATENCY, micros, servable.name, "Predict", "TF1")
        return outputs

    def count(self, model: str, api: str, entrypoint: str, code: Code, started: float) -> None:
        """Count a request that began at ``started`` by ``time.perf_counter()`` and ended now."""
        if self.metrics is not None:
            self.metrics.request(model, api, entrypoint, code, (time.perf_counter() - started) * 1e6)
