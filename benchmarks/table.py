"""From rows to tables: CPU per request with start-up taken out, medians, ratios with intervals, the goals."""

import json
import operator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.plan import RATE
from infscale.analysis.intervals import MIN_LIFETIMES, Interval, geometric_mean

CELL = ["section", "server", "rate_per_s", "protocol", "tool"]
CLIENT = ["server", "tool", "protocol"]
EXPLORATORY_BELOW = 5
"""Fewer pairs than these have an interval that is wide by rights, and is said to be exploratory."""
METRICS = {"cpu_us": "CPU", "p99_ms": "p99", "delivered_per_s": "rate delivered"}


def read(folder: Path) -> pd.DataFrame:
    """results.csv with ``cpu_us`` filled in; rows of failed runs are left out."""
    rows = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""])
    rows = rows[rows["note"].isna() & (rows["role"] != "missing")].copy()
    rows.loc[rows["role"] == "timestamps", ["p50_ms", "p99_ms"]] = np.nan  # of a client that writes every timestamp
    return with_cpu(rows)


def with_cpu(rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``cpu_us``, the client's CPU per request: (C − C₀) ÷ (n − n₀).

    C is user + system of a run and n its requests; C₀ and n₀ are medians over the short runs of the same client
    against the same server, so that whatever a client spends once per run cancels.
    """
    rows = rows.copy()
    rows["cpu_s"] = rows["client_cpu_s"].fillna(rows["cpu_user_s"] + rows["cpu_system_s"])
    short = rows[rows["role"] == "baseline"].groupby(CLIENT)[["cpu_s", "requests"]].median()
    base = rows[CLIENT].merge(short.reset_index(), how="left", on=CLIENT).set_index(rows.index)
    more = rows["requests"] - base["requests"]
    rows["cpu_us"] = ((rows["cpu_s"] - base["cpu_s"]) / more * 1e6).where((rows["role"] == "load") & (more > 0))
    return rows


def medians(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each cell: medians over its runs, the number ``runs`` of them, the worst steal."""
    wanted = rows[rows["role"].isin(["load", "timestamps"])]
    grouped = wanted.groupby([*CELL, "loop", "arrivals"], sort=False)
    numbers = [
        "cpu_us",
        "engine_cpu_us",
        "delivered_per_s",
        "p50_ms",
        "p99_ms",
        "rtt_p99_ms",
        "lag_p50_us",
        "lag_p99_us",
    ]
    out = grouped[numbers].median()
    out["errors"] = grouped["errors"].sum()
    out["runs"] = grouped["role"].agg(lambda roles: int((roles == "load").sum()))
    out["steal"] = grouped["steal"].max()
    out["clock"] = grouped["clock"].first()
    return out.reset_index()


def _paired(rows: pd.DataFrame, metric: str) -> dict[str, "pd.Series[float]"]:
    """The metric by tool, each indexed by alternation."""
    known = rows[np.isfinite(rows[metric]) & (rows[metric] > 0)]
    return {str(tool): group.set_index("alternation")[metric] for tool, group in known.groupby("tool")}


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Ours ÷ peer for each cell and metric, paired by alternation; columns of :class:`Interval`.

    Times are compared within one kind of loop only.
    """
    out = []
    for cell, group in rows[rows["role"].isin(["load", "timestamps"])].groupby(CELL[:4], sort=False):
        loops = group.groupby("tool")["loop"].first()
        for metric in METRICS:
            tools = _paired(group, metric)
            for peer in sorted(set(tools) - {"ours"}) if "ours" in tools else []:
                if metric != "p99_ms" or loops[peer] == loops["ours"]:
                    out.append([*cell, peer, metric, *_ratio(tools["ours"], tools[peer])])
    return pd.DataFrame(out, columns=[*CELL[:4], "peer", "metric", "ratio", "low", "high", "pairs"])


def _ratio(ours: "pd.Series[float]", peer: "pd.Series[float]") -> tuple[float, float, float, int]:
    quotient = (ours / peer).dropna()
    found: Interval = geometric_mean(quotient.to_numpy())
    return found.value, found.low, found.high, found.lifetimes


@dataclass(frozen=True)
class Goal:
    """One number to reach: ``value`` by its rule must not be above (or below) ``limit``."""

    text: str
    limit: float
    at_least: bool = False

    def verdict(self, value: float, low: float = np.nan, high: float = np.nan) -> str:
        """ "reached", "not reached", or "cannot conclude" where the interval holds the limit; "not measured"."""
        if not np.isfinite(value):
            return "not measured"
        good = operator.ge if self.at_least else operator.le
        inside = low < self.limit < high
        return "cannot conclude" if inside else "reached" if good(value, self.limit) else "not reached"


RATIO_GOALS: list[tuple[str, str, float, str, str, str, Goal]] = [
    *(
        ("triton", p, RATE, "perf_analyzer", "cpu_us", name, Goal(f"CPU per request ÷ perf_analyzer -a, {name}", 0.5))
        for p, name in (("rest", "REST"), ("grpc", "gRPC"))
    ),
    ("triton", "rest", RATE, "locust", "cpu_us", "REST", Goal("CPU per request ÷ Locust FastHttpUser, REST", 0.3)),
    ("triton", "rest", RATE, "loadgen", "cpu_us", "REST", Goal("CPU per request ÷ LoadGen, REST", 0.3)),
    ("triton", "grpc", RATE, "loadgen", "cpu_us", "gRPC", Goal("CPU per request ÷ LoadGen, gRPC", 0.3)),
    *(
        (
            "triton",
            p,
            RATE,
            "perf_analyzer",
            "p99_ms",
            name,
            Goal(f"p99, ours (scheduled) ÷ perf_analyzer's (sent), {name}", 1),
        )
        for p, name in (("rest", "REST"), ("grpc", "gRPC"))
    ),
    *(
        (
            server,
            "rest",
            0,
            "wrk",
            "delivered_per_s",
            "REST",
            Goal(f"most requests/s ÷ wrk, REST, {server}", 0.85, True),
        )
        for server in ("null", "triton")
    ),
    *(
        (
            server,
            "grpc",
            0,
            "h2load",
            "delivered_per_s",
            "gRPC",
            Goal(f"most requests/s ÷ h2load -c1, gRPC, {server}", 1.5, True),
        )
        for server in ("null", "triton")
    ),
]


def goals(rows: pd.DataFrame) -> pd.DataFrame:
    """Each goal with its value, interval and verdict."""
    table = ratios(rows)
    out = []
    for server, protocol, rate, peer, metric, _, goal in RATIO_GOALS:
        keys = {"server": server, "protocol": protocol, "rate_per_s": rate, "peer": peer, "metric": metric}
        found = table[np.logical_and.reduce([table[k] == v for k, v in keys.items()])]
        value, low, high = found[["ratio", "low", "high"]].iloc[0] if len(found) else (np.nan,) * 3
        out.append((goal.text, goal, value, low, high))
    out += [*_lags(rows), *_memory(rows), *_bodies(rows)]
    lines = [
        (text, value, low, high, f"{'≥' if goal.at_least else '≤'} {goal.limit:g}", goal.verdict(value, low, high))
        for text, goal, value, low, high in out
    ]
    return pd.DataFrame(lines, columns=["goal", "value", "low", "high", "limit", "verdict"])


Line = tuple[str, Goal, float, float, float]


def _lags(rows: pd.DataFrame) -> list[Line]:
    ours = rows[(rows["tool"] == "ours") & (rows["role"] == "load")]
    out: list[Line] = []
    for (section, server, protocol), group in ours.groupby(["section", "server", "protocol"], sort=False):
        if section == "2,000/s":
            for column, limit in (("lag_p50_us", 80), ("lag_p99_us", 500)):
                out.append(_lag(f"lag {column[4:7]} at 2,000/s, µs, {protocol}", limit, group[column]))
        elif section == "half of the most":
            rate = group["rate_per_s"].median()
            out.append(
                _lag(f"lag p99 at half the most ({rate:,.0f}/s, {server}), µs, {protocol}", 1000, group["lag_p99_us"])
            )
    return out


def _lag(text: str, limit: float, values: "pd.Series[float]") -> Line:
    found = geometric_mean(values.to_numpy())
    return text, Goal(text, limit), float(values.median()), found.low, found.high


def _memory(rows: pd.DataFrame) -> list[Line]:
    """Peak memory of a long run minus a short one, ÷ the requests between them, paired by alternation."""
    out: list[Line] = []
    for protocol, group in rows[rows["role"] == "memory"].groupby("protocol", sort=False):
        short, long = (group[group["seconds"] == s].set_index("alternation") for s in sorted(group["seconds"].unique()))
        more = (long["peak_bytes"] - short["peak_bytes"]) / (long["requests"] - short["requests"])
        text = f"engine memory, bytes per request, {protocol}"
        out.append((text, Goal(text, 100), float(more.median()), np.nan, np.nan))
    return out


def _bodies(rows: pd.DataFrame) -> list[Line]:
    tools = _paired(rows[rows["role"] == "body"], "delivered_per_s")
    if not {"ours", "sendall"} <= set(tools):
        return []
    value, low, high, _ = _ratio(tools["ours"], tools["sendall"])
    text = "throughput of 12.8 MB gRPC bodies ÷ sendall"
    return [(text, Goal(text, 0.8, True), value, low, high)]


# ------------------------------------------------------------------------------------------ Markdown


def _cell(value: object) -> str:
    if isinstance(value, float):
        if np.isnan(value):
            return "–"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; NaN is a dash."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[_cell(v) for v in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _panel(table: pd.DataFrame, loop: str) -> str:
    part = table[table["loop"] == loop].drop(columns=["loop"])
    part = part.assign(rate_per_s=[f"{r:,.0f}" if r else "most" for r in part["rate_per_s"]], steal=part["steal"] * 100)
    names = {
        "rate_per_s": "offered/s",
        "steal": "steal %",
        "cpu_us": "CPU µs/request",
        "engine_cpu_us": "of it engine µs",
    }
    return markdown(part.drop(columns=["section"]).rename(columns=names).dropna(axis="columns", how="all"))


def _ratio_table(table: pd.DataFrame) -> str:
    kept = table[table["metric"].isin(METRICS)]
    notes = [
        "no interval" if n < MIN_LIFETIMES else "exploratory" if n < EXPLORATORY_BELOW else "" for n in kept["pairs"]
    ]
    rates = [f"{r:,.0f}" if r else "most" for r in kept["rate_per_s"]]
    shown = kept.assign(metric=[METRICS[m] for m in kept["metric"]], rate_per_s=rates, note=notes)
    return markdown(shown.drop(columns=["section"]).rename(columns={"rate_per_s": "offered/s"}))


def write(folder: Path) -> str:
    """Write table.md into ``folder``; returns the goals for the terminal."""
    raw = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""])
    rows, facts = read(folder), json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    cells, reached = medians(rows), markdown(goals(rows))
    not_run = raw[raw["note"].notna()][["section", "server", "tool", "protocol", "rate_per_s", "role", "note"]]
    parts = [
        f"# Load generators side by side, {facts.pop('date')}\n",
        "\n".join(f"- {key}: {value}" for key, value in facts.items()) + "\n",
        "What each number means, and what each client cannot do: ../../README.md.\n",
        "## Goals\n",
        reached,
        "## Open loop (medians over runs)\n",
        _panel(cells, "open"),
        "## Closed loop (medians over runs)\n",
        _panel(cells, "closed"),
        "## Ours ÷ peer: geometric mean and 95 % interval, paired by alternation\n",
        _ratio_table(ratios(rows)),
        "## Not run, or failed\n",
        markdown(not_run) if len(not_run) else "Nothing.\n",
    ]
    (folder / "table.md").write_text("\n".join(parts), encoding="utf-8")
    return reached
