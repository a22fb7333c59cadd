"""Load tools: would Locust or MLPerf LoadGen have said the same as the load engine?"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from infscale.analysis.intervals import geometric_mean
from infscale.analysis.tables import Tables
from infscale.analysis.tables.run_tables import moderate_rates
from infscale.analysis.tables.trials import metric, used
from infscale.experiment.design.arm import CLIENTS, Arm
from infscale.experiment.design.design import TOOLS
from infscale.findings.finding import SIZES, Blocks, Finding, compared
from infscale.records.gate import INVALID, VALID
from infscale.records.manifest import LATE_MS, PERCENTILES, KnownLoad
from infscale.records.runs import Run
from infscale.report.figures.arms import tools as drawing
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import COSTS
from infscale.report.figures.picture import Picture
from infscale.report.wording import capacity_text, with_interval
from infscale.vocabulary import CANNOT, FRAMEWORK_NAMES, NAMES, PROTOCOLS, number

COMPARED = {
    "wire": "the load engine",
    "locust": "Locust with evenly paced users",
    "locust-poisson": "Locust with its Poisson wait",
    "loadgen-server": "LoadGen's Server scenario",
}
"""The clients that are compared, and how they are called; the first is the reference."""

SLO = "p99<20ms"
"""The limit whose highest rate is searched with the load engine and with LoadGen."""

USERS = 8
"""Users of Locust, each with a connection of its own."""

QUANTITIES = (*PERCENTILES, "throughput_per_s")
"""What a tool reports, by the names of :class:`infscale.records.manifest.Reported`."""

OMISSION = (
    "While a user waits for an answer it sends nothing, and what it would have sent has no row (coordinated omission)."
)
"""Why a closed loop meets less of a stall."""

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return the same requests through every tool, a block for each protocol and server."""
    frameworks = list(FRAMEWORK_NAMES) if profile == "full" else ["triton"]
    protocols = PROTOCOLS[:1] if profile == "tiny" else PROTOCOLS
    return [[_arm(protocol, client, name) for client in COMPARED] for name in frameworks for protocol in protocols]


def _arm(protocol: str, client: str, framework: str) -> Arm:
    connections = USERS if CLIENTS[client].tool == "locust" else 0
    return Arm(protocol, client=client, connections=connections, framework=framework)


# -------------------------------------------------------------------------------------------- answer


def tools_table(run: Run, tables: Tables) -> pd.DataFrame:
    """Return what rows and tools say at the larger rate of moderate load, a row for each arm with a VALID trial.

    Columns beside ``arm``: medians over lifetimes of the percentiles ``rows_p50_ms`` … (from the scheduled time, of a
    closed loop from when a user was ready) and of ``rows_throughput_per_s``, and of what the tool says,
    ``reported_p50_ms`` … and ``reported_throughput_per_s``; of the load engine these are the rows' own. NaN is a
    percentile that too few queries of LoadGen are behind. ``rate_per_s`` is λ.
    """
    rates = moderate_rates(run.manifest)
    trials = used(tables.trials)
    trials = trials[(trials["rate_per_s"] == trials["block"].map(rates)) & (trials["verdict"] == VALID)]
    ours = {f"rows_{name}": metric("response", name.removesuffix("_ms")) for name in PERCENTILES}
    ours["rows_throughput_per_s"] = "finished_per_s"
    frame = trials[["arm", "client", "rate_per_s"]].assign(
        **{name: trials[column].astype(float) for name, column in ours.items()},
        **{f"reported_{name}": trials[f"reported_{name}"].astype(float) for name in QUANTITIES},
    )
    own = frame["client"] == "wire"
    for name in QUANTITIES:
        frame.loc[own, f"reported_{name}"] = frame.loc[own, f"rows_{name}"]
    return frame.drop(columns="client").groupby("arm").median().reset_index()


def lead(run: Run, tables: Tables) -> list[str]:
    """Return for each protocol what the tools make of a stall, and up to which rate they say that the SLO is kept."""
    return [*_stalls_in_brief(run), *_at_slo(run, tables)]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on what the tools say, on the client's CPU, on why they differ, and on each arm."""
    return [
        *_said(run, tables),
        *_at_slo(run, tables),
        *_cpu(run, tables),
        *_stalls(run),
        *_limits(run),
        *compared(run, tables),
    ]


def _groups(run: Run, arms: Sequence[int]) -> dict[str, list[int]]:
    """Return some arms by their server and protocol, as they are shown."""
    groups: dict[str, list[int]] = {}
    for arm in arms:
        protocol = NAMES[run.manifest.design.arms[arm].protocol]
        groups.setdefault(f"{run.system(run.implementation(arm))}, {protocol}", []).append(arm)
    return groups


def _name(run: Run, arm: int) -> str:
    return COMPARED[run.manifest.design.arms[arm].client]


def _said(run: Run, tables: Tables) -> list[str]:
    table = {int(row["arm"]): row for row in tools_table(run, tables).to_dict("records")}
    sentences = []
    for title, arms in _groups(run, run.measured).items():
        there = [arm for arm in arms if arm in table]
        if not there:
            sentences.append(f"{title}: {CANNOT} what the tools say, because no trial is VALID.")
            continue
        parts = [f"{_name(run, arm)} reports {_numbers(table[arm], 'reported')}" for arm in there]
        tools = [arm for arm in there if run.manifest.design.arms[arm].client != "wire"]
        rows = [f"{_name(run, arm)} {_numbers(table[arm], 'rows')}" for arm in tools]
        rate = number(table[there[0]]["rate_per_s"])
        sentences.append(
            f"{title} at a nominal {rate} requests/s, medians over lifetimes of p50, p95 and p99 of the response time: "
            f"{'; '.join(parts)}."
        )
        if rows:
            sentences.append(f"{title}, the same from the rows of the tools' requests: {'; '.join(rows)}.")
    return sentences


def _numbers(row: Mapping[Hashable, float], kind: str) -> str:
    p50, p95, p99, throughput = (number(row[f"{kind}_{name}"]) for name in QUANTITIES)
    return f"{p50}, {p95} and {p99} ms at {throughput} requests/s"


def _at_slo(run: Run, tables: Tables) -> list[str]:
    """Return up to which rate the SLO is kept, which is LoadGen's Server metric, and whether LoadGen agrees."""
    slo, sentences = run.manifest.design.slo, []
    if slo is None or "capacity_per_s" not in tables.summary:
        return []
    found = {int(row["arm"]): row for _, row in tables.summary.iterrows() if not row["closed"]}
    for title, arms in _groups(run, [arm for arm in run.measured if arm in found]).items():
        if not any(CLIENTS[run.manifest.design.arms[arm].client].tool == "loadgen" for arm in arms):
            continue
        rates = "; ".join(f"{_name(run, arm)}: {capacity_text(found[arm]).removeprefix('is ')}" for arm in arms)
        sentences.append(
            f"{title}: the highest λ at which {slo} is kept, which is the metric of LoadGen's Server scenario: {rates}."
            f"{_agreement(tables.trials, arms)}"
        )
    return sentences


def _agreement(trials: pd.DataFrame, arms: Sequence[int]) -> str:
    """Return how many trials of the search LoadGen judges as their rows do; "" without any."""
    own = trials[(trials["phase"] == "capacity") & trials["arm"].isin(arms) & (trials["verdict"] != INVALID)]
    judged = own[own["reported_verdict"] != ""]
    if judged.empty:
        return ""
    kept, passed = judged["slo_kept"].astype(bool), judged["reported_verdict"] == VALID
    short = judged[kept & ~passed]["reported_unmet"].str.split().map(lambda unmet: unmet == ["early_stopping"])
    too_few = f"; {int(short.sum())} of those that keep it have too few queries for its early-stopping rule"
    return (
        f" LoadGen itself says VALID of {int((kept & passed).sum())} of the {int(kept.sum())} trials whose rows keep "
        f"it, and of {int((~kept & passed).sum())} of the {int((~kept).sum())} whose rows do not"
        f"{too_few if short.any() else ''}."
    )


def _cpu(run: Run, tables: Tables) -> list[str]:
    grid = tables.trials[tables.trials["phase"] == "grid"]
    cpu = grid.groupby(["arm", "lifetime"])["engine_cpu_us_per_request"].mean()
    sentences = []
    for title, arms in _groups(run, run.measured).items():
        means = {arm: geometric_mean(cpu[cpu.index.get_level_values("arm") == arm]) for arm in arms}
        costs = ", ".join(f"{_name(run, arm)} {with_interval(m.value, m.low, m.high)}" for arm, m in means.items())
        sentences.append(f"{title}: the client's CPU in µs a request, with 95 % intervals: {costs}.")
    return sentences


def _known(run: Run) -> dict[str, list[int]]:
    """Return the arms whose clients were tried on known servers, by protocol; the clients of one server are enough."""
    arms = run.manifest.design.arms
    first = next((arms[arm].framework for arm in run.manifest.tools), "")
    chosen = [arm for arm in run.manifest.tools if arms[arm].framework == first]
    return {NAMES[p]: own for p in PROTOCOLS if (own := [arm for arm in chosen if arms[arm].protocol == p])}


def _stalls_in_brief(run: Run) -> list[str]:
    """Return how many requests of each client met a stall, and the p99 that it gives, for each protocol."""
    sentences = []
    for protocol, arms in _known(run).items():
        stalls = {arm: run.manifest.tools[arm].stall for arm in arms}
        late = [f"{stall.late:,} of {stall.rows:,} with {_name(run, arm)}" for arm, stall in stalls.items()]
        p99 = [number((_reported_ms(stall) or stall.response).get("p99_ms", np.nan)) for stall in stalls.values()]
        one = next(iter(stalls.values()))
        sentences.append(
            f"{protocol}, a null server that stalls once for {one.stall_ms:g} ms under a nominal {one.rate_per_s:g} "
            f"requests/s: later than {LATE_MS:g} ms are {', '.join(late)}; the p99 that they give is {', '.join(p99)} "
            f"ms. {OMISSION}"
        )
    return sentences


def _stalls(run: Run) -> list[str]:
    """Return what a closed loop leaves out of a stall, for each protocol."""
    sentences = []
    for protocol, arms in _known(run).items():
        stalls = {arm: run.manifest.tools[arm].stall for arm in arms}
        parts = [f"{_name(run, arm)} {_stall(stall)}" for arm, stall in stalls.items()]
        one = next(iter(stalls.values()))
        sentences.append(
            f"{protocol}, a null server that stalls once for {one.stall_ms:g} ms under a nominal {one.rate_per_s:g} "
            f"requests/s: {'; '.join(parts)}. {OMISSION}"
        )
    return sentences


def _stall(stall: KnownLoad) -> str:
    said = [f"{number(stall.response['p99_ms'])} ms by its rows"] if stall.response else []
    reported = _reported_ms(stall).get("p99_ms")
    said += [f"{number(reported)} ms as it reports"] if reported is not None else []
    said += [f"{number(stall.corrected['p99_ms'])} ms with what its users omitted"] if stall.corrected else []
    late = f"has {stall.late:,} of {stall.rows:,} answers later than {LATE_MS:g} ms"
    return f"{late}, and a p99 of {', '.join(said) or 'n/a'}"


def _limits(run: Run) -> list[str]:
    """Return what each client can send at most, and what its clock says there, for each protocol."""
    sentences = []
    for protocol, arms in _known(run).items():
        limits = {arm: run.manifest.tools[arm].limit for arm in arms}
        parts = [f"{_name(run, arm)} {_limit(limit, run.manifest.design.arms[arm])}" for arm, limit in limits.items()]
        rate = number(next(iter(limits.values())).rate_per_s)
        sentences.append(
            f"{protocol}, the null server and a nominal {rate} requests/s, to see what a client can send: "
            f"{'; '.join(parts)}. A clock from the send does not see for how long a request waits in its client."
        )
    return sentences


def _limit(limit: KnownLoad, arm: Arm) -> str:
    p99 = [f"{number(kind['p99_ms'])} ms {what}" for kind, what in _clocks(limit, arm) if kind]
    return (
        f"gets {number(limit.answered_per_s)} requests/s answered at {number(limit.cpu_us)} µs of CPU a request, with "
        f"a p99 of {', '.join(p99) or 'n/a'}"
    )


def _clocks(limit: KnownLoad, arm: Arm) -> list[tuple[dict[str, float], str]]:
    start = "from when a user was ready" if arm.closed else "from the schedule"
    return [(limit.response, start), (limit.roundtrip, "from the send"), (_reported_ms(limit), "as it reports")]


def _reported_ms(load: KnownLoad) -> dict[str, float]:
    """Return the percentiles that a tool reports, ms; none of a client that reports nothing."""
    values = {name: getattr(load.reported, name, None) for name in PERCENTILES}
    return {name: value for name, value in values.items() if value is not None}


# ------------------------------------------------------------------------------------------- pictures


def reported_numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return percentiles as :func:`infscale.report.figures.arms.tools.draw` takes them."""
    rows = [
        {
            **_of(run, int(row["arm"])),
            "panel": name.replace("_ms", " (ms)"),
            "kind": kind,
            "value": row[f"{kind}_{name}"],
        }
        for _, row in tools_table(run, tables).iterrows()
        for name in PERCENTILES
        for kind in ("rows", "reported")
    ]
    return pd.DataFrame(rows)


def known_numbers(run: Run, _: Tables) -> pd.DataFrame:
    """Return what came of known servers as :func:`infscale.report.figures.arms.tools.draw` takes it."""
    rows: list[dict[str, object]] = []
    for arm in (arm for own in _known(run).values() for arm in own):
        stall, limit = run.manifest.tools[arm].stall, run.manifest.tools[arm].limit
        values = [
            ("p99 with a stall (ms)", "rows", stall.response.get("p99_ms")),
            ("p99 with a stall (ms)", "corrected", stall.corrected.get("p99_ms")),
            ("p99 with a stall (ms)", "reported", _reported_ms(stall).get("p99_ms")),
            ("met the stall (requests)", "rows", stall.late),
            ("answered at most (requests/s)", "rows", limit.answered_per_s),
        ]
        rows += [
            {**_of(run, arm), "panel": panel, "kind": kind, "value": float(value)}
            for panel, kind, value in values
            if value is not None
        ]
    return pd.DataFrame(rows)


def _of(run: Run, arm: int) -> dict[str, object]:
    return {"arm": arm, "label": run.labels[arm], "protocol": run.manifest.design.arms[arm].protocol}


def _known_caption(run: Run, _: Tables) -> str:
    tool = next(iter(run.manifest.tools.values()))
    return drawing.known_caption(tool.stall.rate_per_s, tool.stall.stall_ms, tool.limit.rate_per_s)


SAID = Picture(
    "reported", reported_numbers, drawing.draw, lambda _, __: drawing.REPORTED_CAPTION, drawing.REPORTED_ALTERNATIVE
)
KNOWN = Picture("known", known_numbers, drawing.draw, _known_caption, drawing.KNOWN_ALTERNATIVE)

FINDING = Finding(
    name=TOOLS,
    question="Would Locust or MLPerf LoadGen have said the same?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=(SUMMARY, SAID, KNOWN, COSTS),
    notebook="19-load-tools",
    sizes={profile: {"slo": SLO} for profile in SIZES},
    beside=("tools",),
)
