"""The report of a run: one page of HTML that needs nothing else, for somebody who was not there."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.errors import DataError
from infscale.records.components import PARTS
from infscale.report.figures.captions import ALTERNATIVES, CAPTIONS, Tables, headline_ratios
from infscale.report.figures.rates import NAMES
from infscale.report.sentences import latency_findings, limits, saturation, saturation_findings, validity_finding
from infscale.vocabulary import number

QUESTION = (
    "How do the protocol (REST or gRPC) and the serving framework change a model's response time, and the arrival "
    "rate that it can keep up with?"
)
PREFIX = "f0-"
"""Figures of this experiment are called ``f0-<name>``."""


def report_html(run: Mapping[str, Any], tables: Tables, figures: Path) -> str:
    """The text of ``report.html``, the same for the same data.

    Args:
        run: the run's manifest.
        tables: what ``summary.summarise`` gave.
        figures: the folder of the figures ``f0-<name>.png`` with their CSV files.

    Raises:
        DataError: a figure is absent or was drawn from another run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("infscale.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        run=run,
        question=QUESTION,
        design=_design(run, tables),
        machine=_machine(run, tables["trials"]),
        validity=validity_finding(tables),
        findings=[*saturation_findings(tables["arms"]), *latency_findings(tables)],
        arms=_arms(tables),
        figures=[_figure(name, tables, figures, str(run["run_id"])) for name in CAPTIONS],
        points=[_point(point) for _, point in tables["points"].iterrows()],
        ratios=[_ratio(row) for _, row in headline_ratios(tables).iterrows()],
        sensitivity=[_sensitivity(row) for _, row in tables["sensitivity"].iterrows()],
        parts=PARTS,
        components=[_components(row) for _, row in tables["components"].iterrows()],
        limits=limits(run, tables),
        studies=_studies(figures),
        advice=_advice(figures / "advice.json"),
    )


def _design(run: Mapping[str, Any], tables: Tables) -> dict[str, str]:
    """What was run, in names and values."""
    config, trials = run["config"], tables["trials"]
    phases = trials["phase"].value_counts()
    counts = ", ".join(f"{count} in the {phase}" for phase, count in phases.items())
    built = [
        f"{item['label']}: version {item['version']}, runtime {item['runtime']}"
        for item in run["implementations"].values()
    ]
    rates = [
        f"{run['implementations'][name]['label']}: {', '.join(number(rate) for rate in sorted(rates))}"
        for name, rates in run["rates_per_s"].items()
    ]
    return {
        "Implementations": "; ".join(built),
        "Protocols": ", ".join(NAMES[name] for name in config["protocols"]),
        "Model": str(config["model"]),
        "Arrivals": "Poisson, open loop; every protocol gets the same arrival times within a replicate",
        "Arrival rates λ (requests/s)": "; ".join(rates),
        "Replicates": f"{config['replicates']}, in a new random order each",
        "Trials": f"{counts}; {_range(trials['duration_s'])} s of arrivals each",
        "Named before the run": _contrasts(run),
        "Timeout": f"{config['timeout_s']:g} s",
        "Profile": f"{run['profile']} ({run['status']})",
        "Time": f"{_time(run['started_at'])} to {_time(run.get('finished_at'))}",
    }


def _contrasts(run: Mapping[str, Any]) -> str:
    """The comparisons that the run was made for; whatever else it shows was looked for afterwards."""
    named = [
        f"{c['framework']}: {NAMES[c['over']]} ÷ {NAMES[c['under']]} of {c['metric']}, {c['correction']}"
        for c in run.get("contrasts", ())
    ]
    return "; ".join(named) or "nothing (the run is from before contrasts were stored)"


def _range(values: "pd.Series[float]") -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _machine(run: Mapping[str, Any], trials: pd.DataFrame) -> dict[str, str]:
    """The machine and its state while measuring."""
    machine = run["machine"]
    return {
        "CPU": f"{machine['cpu']}, {machine['cores']} cores",
        "Frequency governor": machine.get("governor") or "not known",
        "Memory": f"{machine['memory_gib']:.3g} GiB",
        "System": f"{machine['os']}, kernel {machine['kernel']}; clock {run['clock']}",
        "Steal (largest of a trial)": f"{trials['steal_fraction'].astype(float).max():.2%}",
        "Load average (1 min, largest)": number(float(trials["loadavg_1m"].astype(float).max())),
        "Load generator": f"{trials['engine_cpu_share'].median():.0%} of a core (median of trials), "
        f"{number(float(trials['engine_cpu_us_per_request'].median()))} µs CPU per request",
    }


def _arms(tables: Tables) -> list[dict[str, Any]]:
    """The rows of the table of arms."""
    shares = tables["shares"].set_index(["implementation", "protocol"])
    rows = []
    for _, arm in tables["arms"].iterrows():
        share = shares.loc[(arm["implementation"], arm["protocol"])]
        rows.append(
            {
                **{key: arm[key] for key in ("label", "trials", "valid", "saturated", "invalid")},
                "protocol": NAMES[arm["protocol"]],
                "saturation": saturation(arm),
                "below": f"{share['valid']} of {share['trials']}",
                "reasons": share["reasons"] or "–",
            }
        )
    return rows


def _point(point: "pd.Series[Any]") -> dict[str, Any]:
    """One row of the table of points."""
    cells = {quantile: _cell(point, metric("response", quantile)) for quantile in QUANTILES}
    return {
        **{key: point[key] for key in ("label", "verdict", "replicates", "unsteady", "failed")},
        "protocol": NAMES[point["protocol"]],
        "rate": number(point["rate_per_s"]),
        "achieved": number(point["achieved_per_s"]),
        "goodput": number(point["goodput_per_s"]),
        "roundtrip": _cell(point, metric("roundtrip", "p95")),
        "spread": _percent(point[f"{metric('response', 'p95')}_spread"]),
        **cells,
    }


def _cell(point: "pd.Series[Any]", column: str) -> str:
    """A percentile with its interval; a lower bound with its sign; "–" where it is withheld."""
    value = point[column]
    if np.isnan(value):
        return "–"
    if point[f"{column}_bound"]:
        return f"≥ {number(value)}"
    low, high = point[f"{column}_low"], point[f"{column}_high"]
    mark = "†" if point.get(f"{column}_below_floor") else ""
    return f"{number(value)}{mark}" + ("" if np.isnan(low) else f" [{number(low)}, {number(high)}]")


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0%}"


def _ratio(row: "pd.Series[Any]") -> dict[str, Any]:
    """One row of the table of ratios."""
    known = np.isfinite(row["ratio_low"])
    slower = {"rest": "REST slower", "grpc": "gRPC slower"}.get(row["conclusion"], row["conclusion"])
    return {
        "label": row["label"],
        "rate": number(row["rate_per_s"]),
        "replicates": row["replicates"],
        "ratio": "–" if np.isnan(row["ratio"]) else number(row["ratio"]),
        "interval": f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else row["note"],
        "hodges_lehmann": "–" if np.isnan(row["hodges_lehmann"]) else number(row["hodges_lehmann"]),
        "spread": "–" if np.isnan(row["spread"]) else f"{row['spread']:.0%}",
        "holm": number(row["p_holm"]) if known else "–",
        "conclusion": slower,
    }


def _sensitivity(row: "pd.Series[Any]") -> dict[str, Any]:
    """One row of the table of the sensitivity check."""
    known = np.isfinite(row["ratio_low"])
    return {
        "label": row["label"],
        "protocol": NAMES[row["protocol"]],
        "variant": row["encoding"] + ("" if pd.isna(row["connections"]) else f", {row['connections']:.0f} connections"),
        "rate": number(row["rate_per_s"]),
        "replicates": row["replicates"],
        "ratio": "–" if np.isnan(row["ratio"]) else number(row["ratio"]),
        "interval": f"[{number(row['ratio_low'])}, {number(row['ratio_high'])}]" if known else "–",
        "conclusion": "cannot conclude" if not row["differs"] else "slower" if row["ratio"] > 1 else "faster",
    }


def _components(row: "pd.Series[Any]") -> dict[str, Any]:
    """One row of the table of components."""
    return {
        "label": row["label"],
        "protocol": NAMES[row["protocol"]],
        "rate": number(row["rate_per_s"]),
        "replicates": row["replicates"],
        "means": [number(row[f"mean_{part}_ms"]) for part in (*PARTS, "response")],
    }


PAGE_PIXELS = 1440
"""A figure as wide as a page: 7.2 inches at 200 dpi."""


def _advice(file: Path) -> dict[str, Any] | None:
    """What the notebook 60-advice wrote, if it has."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _studies(folder: Path) -> list[dict[str, Any]]:
    """The findings that were measured apart and drawn into the same folder, with their own runs' ids."""
    told = []
    every = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("finding-*.json")]
    for found in sorted(every, key=lambda one: one["order"]):
        figures = [figure | _shown(folder / figure["file"]) for figure in found["figures"]]
        told.append({**found, "figures": figures})
    return told


def _figure(name: str, tables: Tables, folder: Path, run_id: str) -> dict[str, str]:
    """One figure: its picture as a data URI, its text alternative and its caption."""
    picture, numbers = folder / f"{PREFIX}{name}.png", folder / f"{PREFIX}{name}.csv"
    if not (picture.is_file() and numbers.is_file()):
        raise DataError(f"{picture} is absent: run notebooks/40-figures.ipynb for this run first")
    drawn_from = pd.read_csv(numbers, usecols=["run_id"], dtype=str)["run_id"].unique().tolist()
    if drawn_from not in ([], [run_id]):
        raise DataError(
            f"{picture} was drawn from {drawn_from}, not from {run_id}: run notebooks/40-figures.ipynb again"
        )
    return {"uri": _uri(picture), "alt": ALTERNATIVES[name], "caption": CAPTIONS[name](tables)}


def _shown(picture: Path) -> dict[str, Any]:
    """A picture and its share of the page's width, %: one of a column is not blown up to a page."""
    pixels = int.from_bytes(picture.read_bytes()[16:20], "big")  # PNG's header holds the width there
    return {"uri": _uri(picture), "width": min(100, round(100 * pixels / PAGE_PIXELS))}


def _uri(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _time(value: str | None) -> str:
    """A stored time without fractions of a second."""
    return "not finished" if not value else value[:16].replace("T", " ") + " UTC"
