"""Hybrid (F1d): can a REST edge in front of gRPC have the merits of both, and what does the edge cost?"""

from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding, compared, counterpart, measured
from infscale.records.runs import Run
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import COSTS
from infscale.report.wording import ratio_text
from infscale.vocabulary import FRAMEWORK_NAMES


def blocks(profile: str) -> Blocks:
    """Return a REST edge in front of gRPC, with both of its bodies, beside the server's own REST and gRPC."""
    if profile == "tiny":
        return [[Arm("grpc", framework="triton"), Arm("rest", "json", framework="triton", front="edge")]]
    if profile == "quick":
        return [_block("triton", 16)]
    return [_block(framework, batch) for framework in FRAMEWORK_NAMES for batch in (1, 16, 256)]


def _block(framework: str, batch: int) -> list[Arm]:
    arms = [
        Arm("rest", "json", batch=batch, framework=framework),
        Arm("rest", "raw", batch=batch, framework=framework),
        Arm("grpc", batch=batch, framework=framework),
        Arm("rest", "json", batch=batch, framework=framework, front="edge"),
        Arm("rest", "raw", batch=batch, framework=framework, front="edge"),
    ]
    return arms[:1] + arms[2:] if framework == "tfserving" else arms  # whose REST takes no binary body


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on each edge against direct REST with JSON and direct gRPC, and on the edge's own CPU."""
    edges = [arm for arm in run.measured if run.manifest.design.arms[arm].front == "edge"]
    ratios = Ratios(run.manifest, tables.trials)
    return [*(_edge(run, tables, ratios, arm) for arm in edges), *compared(run, tables)]


def _edge(run: Run, tables: Tables, ratios: Ratios, edge: int) -> str:
    direct = {
        "direct REST with JSON": counterpart(run, edge, front="", encoding="json"),
        "direct gRPC": counterpart(run, edge, front="", protocol="grpc", encoding=""),
    }
    comparisons = "; ".join(
        f"{ratio_text('its p95 response time', ratios.ratio(edge, arm), f'that of {name}')}, and "
        f"{ratio_text('its saturation rate', ratios.capacity(edge, arm), f'that of {name}')}"
        for name, arm in direct.items()
        if arm is not None
    )
    return (
        f"{run.labels[edge]}: {comparisons or 'nothing to compare it with was measured'}. A request takes "
        f"{measured(tables, 'cpu_us_gateway', edge)} µs of the edge's CPU beside "
        f"{measured(tables, 'cpu_us_server', edge)} µs of the model server's (in brackets: 95 % intervals)."
    )


FINDING = Finding(
    name="hybrid",
    question="Can a REST edge that speaks gRPC to the model server have the merits of both, and what does the edge "
    "cost?",
    blocks=blocks,
    answer=answer,
    pictures=(SUMMARY, COSTS),
    notebook="12-hybrid",
)
