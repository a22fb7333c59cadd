"""What a finding says, as a file that the report takes in: question, sentences, figures, and where they come from."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infscale.analysis.tables.cases import sentences
from infscale.experiment.design.grid import LEAST_REQUESTS
from infscale.findings import studies
from infscale.findings.answers import answers
from infscale.findings.cases import WAYS
from infscale.findings.ratios import Tables, prefixes
from infscale.findings.topology import balancing_table, gain_by_repeat
from infscale.models.reference import inputs
from infscale.records.runs import Run
from infscale.report.figures import balancing as figures_balancing
from infscale.report.figures import caching as figures_caching
from infscale.report.figures import cases as figures_study
from infscale.report.figures import sizes as figures_sizes
from infscale.report.figures import usage as figures_usage
from infscale.report.figures.files import save_figure, write


@dataclass(frozen=True)
class Picture:
    """One figure of a finding: from its tables the numbers, from the numbers the figure.

    Attributes:
        name: of the file after ``finding-<finding>``; empty for the first.
        numbers: what is drawn, from run and tables; nothing is drawn of an empty table.
        draw: the figure.
        caption: from run and tables.
        alternative: the text for those who do not see it.
    """

    name: str
    numbers: Callable[[Run, Tables], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    caption: Callable[[Run, Tables], str]
    alternative: str


CASES = Picture(
    "",
    lambda _, tables: tables["cases"],
    figures_study.cases,
    lambda _, tables: figures_study.caption(tables),
    "Bytes on the wire, capacity and p95 response time of every case, a row each.",
)
COSTS = Picture(
    "cost",
    lambda _, tables: _at_common_rate(tables),
    figures_usage.cost_of_a_request,
    lambda _, tables: "At the common rate. " + figures_usage.caption(_at_common_rate(tables)),
    "CPU of a request and peak memory of client, gateway and server, a bar a case.",
)
CORES = Picture(
    "cores",
    lambda _, tables: tables["usage"],
    figures_usage.cores_vs_rate,
    lambda _, tables: figures_usage.caption(tables["usage"]),
    "CPU cores used by client and server against the achieved rate, a panel a case or framework.",
)
GAIN = Picture(
    "gain",
    lambda _, tables: _gains(tables),
    figures_caching.gain,
    lambda _, tables: (
        "Capacity with a cache divided by that without, against the fraction of requests that repeat, with 95 % "
        "intervals over replicates that hold the width of the brackets; below 1 the cache costs more than it gains."
    ),
    "Capacity with a cache divided by capacity without, against the fraction of requests that repeat.",
)
SHARES = Picture(
    "shares",
    lambda run, tables: balancing_table(run, tables),
    figures_balancing.balancing,
    lambda _, tables: (
        "Left: the share of requests that each replica answered at the common rate, by the servers' own counters, the "
        "busiest of each trial first (of slow ones: the slow one). "
        "Right: capacity by number of replicas with 95 % intervals, and one replica's capacity times their number."
    ),
    "Share of the requests by replica, and capacity against the number of replicas.",
)
SIZES = Picture(
    "sizes",
    lambda run, tables: _sizes(run, tables),
    figures_sizes.sizes,
    lambda _, tables: (
        "Above p95 response time, below capacity, against the bytes of the fp32 tensor of a request, with 95 % "
        "intervals over replicates. Encodings of one size and serving system are compared at one arrival rate; it "
        "differs between sizes. Hollow grey: not VALID; of a capacity: without a bracket."
    ),
    "p95 response time and capacity against the size of the tensor, a line for each encoding.",
)
PICTURES: dict[str, tuple[Picture, ...]] = {
    "encodings": (SIZES,),
    "hybrid": (COSTS,),
    "client-stacks": (COSTS,),
    "caching": (GAIN, COSTS),
    "utilisation": (CORES, COSTS),
    "load-balancing": (SHARES,),
}
"""What a finding shows beside its cases."""


def _at_common_rate(tables: Tables) -> pd.DataFrame:
    usage, rates = tables["usage"], tables["cases"][["label", "rate_per_s"]]
    return usage if usage.empty else rates.merge(usage, on=["label", "rate_per_s"])


def _sizes(run: Run, tables: Tables) -> pd.DataFrame:
    """The cases that carry the same kind of tensor in several sizes; empty where there is but one size."""
    labels = run.case_labels()
    every = {labels[c["name"]]: c for c in run.manifest["config"]["cases"] if c["name"] in labels}
    rows = []
    for _, row in tables["cases"].iterrows():
        case, model = every[row["label"]], every[row["label"]]["model"] or run.manifest["config"]["model"]
        arm, names = case["arm"], {way: name for name, way in WAYS[case["framework"]].items()}
        way = names.get((arm["protocol"], arm["encoding"], arm["gzip"]))
        if way and model == "mlp" and not case["front"] and arm["http"] != "2":
            told = {"label": run.label(str(row["implementation"])), "way": way}
            rows.append({**row, **told, "tensor_bytes": arm["batch"] * inputs(model)[0].nbytes})
    table = pd.DataFrame(rows)
    if table.empty or table["tensor_bytes"].nunique() < 2:
        return pd.DataFrame()
    return table.drop_duplicates(["label", "protocol", "way", "tensor_bytes"])


def _gains(tables: Tables) -> pd.DataFrame:
    every = {
        (prefix.rstrip(", "), where): gain_by_repeat(tables, prefix, where)
        for prefix in prefixes(tables, "no cache")
        for where in figures_caching.LOOKS
    }
    return figures_caching.numbers(every)


def save(stored: Run, tables: Tables, folder: Path) -> dict[str, Any]:
    """Draw a finding's figures and write ``finding-<name>.json`` to ``folder``; returns what was written."""
    run = stored.manifest
    name = str(run["experiment"])
    told = {
        "name": name,
        "order": list(studies.STUDIES).index(name),
        "question": studies.STUDIES[name].question,
        "sentences": [*answers(stored, tables), *sentences(tables)],
        "figures": [
            figure for picture in (CASES, *PICTURES.get(name, ())) for figure in _drawn(picture, stored, tables, folder)
        ],
        "limits": limits(run),
        "left_out": list(run.get("skipped", {})),
        **{key: run[key] for key in ("run_id", "commit", "environment_digest", "profile")},
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    write(folder / f"finding-{name}.json", text)
    return told


def _drawn(picture: Picture, stored: Run, tables: Tables, folder: Path) -> list[dict[str, str]]:
    numbers = picture.numbers(stored, tables)
    if numbers.empty:
        return []
    name = "-".join(filter(None, ("finding", str(stored.manifest["experiment"]), picture.name)))
    file = save_figure(picture.draw(numbers), name, folder, numbers, stored.manifest)
    return [{"file": file.name, "caption": picture.caption(stored, tables), "alt": picture.alternative}]


def limits(run: Mapping[str, Any]) -> list[str]:
    """What a finding's run cannot show, from its own design."""
    config = run["config"]
    embedded = [f"“{i['label']}”" for i in run["implementations"].values() if "embedded" in i["implementation"]]
    runtimes = "; ".join(f"{i['label']}: {i['runtime']}" for i in run["implementations"].values())
    models = ", ".join(dict.fromkeys(case.get("model") or config["model"] for case in config["cases"]))
    return [
        f"Profile {run['profile']}: {config['replicates']} replicates; trials at common rates last "
        f"{config['trial_s']:g} s, or as long as {LEAST_REQUESTS} requests take.",
        *(f"A server was lost under load: {text}." for text in run.get("restarts", ())),
        f"Model {models}; computed by {runtimes}.",
        "Differences of p95 are corrected after Holm over the cases; those of capacities are not.",
        "Load generator and server shared a machine.",
        "Request bodies are encoded, and compressed, before a trial: what that costs the client is not in these times.",
        *([f"{', '.join(embedded)} is our implementation of a published interface."] if embedded else []),
        *(f"Left out: {name} ({why})." for name, why in run.get("skipped", {}).items()),
    ]
