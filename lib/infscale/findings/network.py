"""Network (F8): when do the bytes on the wire decide, on which link, and with TLS?"""

from msgspec.structs import replace

from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import link
from infscale.findings.finding import Blocks, Finding, compared, counterpart
from infscale.records.runs import Run
from infscale.report.wording import capacity_ratio_text, ratio_text
from infscale.vocabulary import CANNOT

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
    """Return sentences on the gap between JSON and gRPC by link.

    A sentence says "slower" only where that remains significant after Holm's correction.
    """
    arms = run.manifest.design.arms
    json = [arm for arm in run.measured if arms[arm].encoding == "json"]
    ratios = Ratios(tables.trials)
    return [*(_link(run, tables, ratios, arm) for arm in json), *compared(run, tables)]


def _link(run: Run, tables: Tables, ratios: Ratios, json: int) -> str:
    arm = run.manifest.design.arms[json]
    subject = ", ".join(filter(None, (link(arm), "TLS" if arm.tls else "")))
    grpc = counterpart(run, json, protocol="grpc", encoding="")
    if grpc is None:
        return f"{subject}: gRPC was not measured beside REST with JSON."
    contrasts = tables.contrasts
    row = contrasts[(contrasts["arm"] == grpc) & (contrasts["reference"] == json)]
    conclusions = {"faster": "JSON is slower", "slower": "gRPC is slower"}
    conclusion = conclusions.get(row["conclusion"].iloc[0] if len(row) else "", f"{CANNOT} which is slower")
    p95 = ratio_text("the p95 response time of REST with JSON", ratios.ratio(json, grpc), "that of gRPC")
    most = capacity_ratio_text("The saturation rate of gRPC", ratios.capacity(grpc, json), "that of JSON")
    return f"{subject}: {p95}: {conclusion}. {most}."


FINDING = Finding(
    name="network",
    question="When do the bytes on the wire decide: on which link, and with TLS?",
    blocks=blocks,
    answer=answer,
    notebook="18-network",
)
