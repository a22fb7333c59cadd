"""Network (F8): when do the bytes on the wire decide, on which link, and with TLS?"""

from msgspec.structs import replace

from infscale.analysis.tables import Tables
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import link
from infscale.findings.finding import Blocks, Finding, compared, counterpart
from infscale.records.runs import Run
from infscale.report.wording import contrast_text

JSON = Arm("rest", "json", batch=16, framework="triton", front="network")
"""REST with JSON over loopback; the other arms differ from it in some factors."""

LINKS = (JSON, replace(JSON, rate_mbit=100.0), replace(JSON, tls=True))
"""REST with JSON over each link: loopback, a limited link, TLS."""

MORE_LINKS = (
    replace(JSON, linked=True),
    replace(JSON, rate_mbit=1000.0),
    replace(JSON, rate_mbit=100.0, delay_ms=20.0),
    replace(JSON, rate_mbit=100.0, tls=True),
    replace(JSON, front="balanced", balancer="envoy-l4"),  # the hop that TLS takes, without TLS
)
"""The same over the other links of the full profile."""


def blocks(profile: str) -> Blocks:
    """Return JSON and protobuf over links and TLS, a block for each link; binary bodies too for "full"."""
    if profile == "full":
        return [[json, _grpc(json), replace(json, encoding="raw")] for json in (*LINKS, *MORE_LINKS)]
    links = LINKS[1:2] if profile == "tiny" else LINKS
    return [[json, _grpc(json)] for json in links]


def _grpc(json: Arm) -> Arm:
    return replace(json, protocol="grpc", encoding="")


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the gap between JSON and gRPC by link, as the named contrasts decide it."""
    arms = run.manifest.design.arms
    json = [arm for arm in run.measured if arms[arm].encoding == "json"]
    return [*(_link(run, tables, arm) for arm in json), *compared(run, tables)]


def _link(run: Run, tables: Tables, json: int) -> str:
    arm = run.manifest.design.arms[json]
    subject = ", ".join(filter(None, (link(arm), "TLS" if arm.tls else "")))
    grpc = counterpart(run, json, protocol="grpc", encoding="")
    rows = tables.contrasts[(tables.contrasts["arm"] == grpc) & (tables.contrasts["reference"] == json)]
    said = [contrast_text(row, "gRPC", "REST with JSON") for _, row in rows.iterrows()]
    return f"{subject}: {'; '.join(said) or 'gRPC was not measured beside REST with JSON'}."


FINDING = Finding(
    name="network",
    question="When do the bytes on the wire decide: on which link, and with TLS?",
    blocks=blocks,
    answer=answer,
    notebook="18-network",
)
