"""Client stacks (F6): how much of the difference between REST and gRPC is the client library's?"""

import numpy as np

from infscale.analysis.intervals import Interval, geometric_mean
from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding, compared, counterpart
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import COSTS
from infscale.report.wording import ratio_text, with_interval
from infscale.vocabulary import CANNOT, FRAMEWORK_NAMES

STACKS = (("rest", "wire"), ("rest", "requests"), ("grpc", "wire"), ("grpc", "grpcio"))
"""Protocol and client."""


def blocks(profile: str) -> Blocks:
    """Return the same tensor through the wire engine and through the libraries that people use, on one server."""
    frameworks = list(FRAMEWORK_NAMES) if profile == "full" else ["triton"]
    stacks = STACKS[:2] if profile == "tiny" else STACKS
    return [[Arm(protocol, client=client, framework=name) for protocol, client in stacks] for name in frameworks]


def lead(run: Run, tables: Tables) -> list[str]:
    """Return a sentence for each server on the gap between the protocols through libraries and through the engine."""
    wire = [arm for arm in run.measured if _is(run, arm, "rest", "wire")]
    ratios = Ratios(run.manifest, tables.trials)
    return [_gap(run, tables, ratios, arm) for arm in wire]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the gap between the protocols, on the client's CPU, and on each arm."""
    return [*lead(run, tables), *compared(run, tables)]


def _is(run: Run, arm_number: int, protocol: str, client: str) -> bool:
    arm = run.manifest.design.arms[arm_number]
    return (arm.protocol, arm.client) == (protocol, client)


def _gap(run: Run, tables: Tables, ratios: Ratios, rest_wire: int) -> str:
    arms = {
        "REST through the engine": rest_wire,
        "REST through requests": counterpart(run, rest_wire, client="requests"),
        "gRPC through the engine": counterpart(run, rest_wire, protocol="grpc"),
        "gRPC through grpcio": counterpart(run, rest_wire, protocol="grpc", client="grpcio"),
    }
    _, rest_library, grpc_wire, grpc_library = arms.values()
    libraries, wire = _ratio(ratios, rest_library, grpc_library), _ratio(ratios, rest_wire, grpc_wire)
    grid = tables.trials[tables.trials["phase"] == "grid"]
    cpu = grid.groupby(["arm", "lifetime"])["engine_cpu_us_per_request"].mean()
    means = {name: geometric_mean(cpu[cpu.index.get_level_values("arm") == arm]) for name, arm in arms.items()}
    costs = ", ".join(f"{name} {with_interval(mean.value, mean.low, mean.high)}" for name, mean in means.items())
    return (
        f"{run.system(run.implementation(rest_wire))}: through the libraries "
        f"{ratio_text('the p95 response time of REST', libraries, 'that of gRPC')}; through the wire engine "
        f"{ratio_text('it', wire, 'that of gRPC')}: {_part(libraries, wire)}. "
        f"The client's CPU in µs a request, with 95 % intervals: {costs}."
    )


def _ratio(ratios: Ratios, arm: int | None, reference: int | None) -> Interval | None:
    return None if arm is None or reference is None else ratios.ratio(arm, reference)


def _part(libraries: Interval | None, wire: Interval | None) -> str:
    if libraries is None or wire is None or not np.isfinite([libraries.low, wire.low]).all():
        return f"{CANNOT} how much of the gap is the libraries'"
    if libraries.low > wire.high:
        return "the libraries move the gap in favour of gRPC"
    if libraries.high < wire.low:
        return "the libraries move the gap in favour of REST"
    return f"{CANNOT} whether the libraries move the gap"


FINDING = Finding(
    name="client-stacks",
    question="How much of the difference between REST and gRPC is the client library's?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=(SUMMARY, COSTS),
    notebook="17-client-stacks",
)
