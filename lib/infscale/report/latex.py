"""What a paper includes: figures as PDF and PNG with their numbers beside, LaTeX macros, a booktabs table.

Everything here is a function of stored data: drawn twice, files are equal byte by byte. No date of drawing and
no version of a program enters them; the run they come from does.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from infscale.analysis.tables.summary import common_rates
from infscale.analysis.tables.trials import QUANTILES, metric
from infscale.report.figures.captions import headline_ratios
from infscale.report.figures.rates import NAMES
from infscale.vocabulary import number

DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
TENS = ("", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")

Macro = tuple[str, str, str]
"""Name without backslash, value, and a comment that holds the unit."""


# ---------------------------------------------------------------------------------------------- macros


def macro_name(*parts: object) -> str:
    r"""A LaTeX macro's name, letters only.

    ``macro_name("torchserve", "rest", "p95")`` is ``infTorchserveRestPNinetyFive``.

    Numbers become words, up to 99 in tens and ones, digit by digit beyond.
    """
    words = re.findall(r"[A-Za-z]+|[0-9]+", " ".join(str(part) for part in parts))
    return "inf" + "".join(_spelled(word) if word.isdigit() else word[0].upper() + word[1:] for word in words)


def values_tex(run: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> str:
    r"""The text of ``values.tex``: one ``\newcommand`` per number, three significant digits, units in comments.

    Rates are numbered in ascending order per implementation (``…RateOne``); a lower bound carries its ≥, and a
    number that is withheld reads "n/a", so that neither can be taken for an estimate.

    Raises:
        ValueError: two numbers would have the same name.
    """
    head = [
        "% Generated from stored data; do not edit.",
        *(f"% {key}: {run[key]}" for key in ("run_id", "commit", "environment_digest", "code_digest", "profile")),
    ]
    found = [*_run_macros(run, tables), *_arm_macros(tables), *_point_macros(tables["points"]), *_ratio_macros(tables)]
    names = [name for name, _, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several numbers would be called {', '.join(twice)}")
    lines = [f"\\newcommand{{\\{name}}}{{{value}}} % {comment}" for name, value, comment in found]
    return "\n".join([*head, *lines, ""])


def _run_macros(run: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Iterator[Macro]:
    config, shares = run["config"], tables["shares"]
    share = shares["valid"].sum() / max(1, shares["trials"].sum())
    yield macro_name("replicates"), str(config["replicates"]), "replicates of every arm"
    yield macro_name("trial seconds"), number(config["trial_s"]), "s, length of a trial"
    yield macro_name("valid share"), number(100 * share), "%, VALID trials below saturation"


def _arm_macros(tables: Mapping[str, pd.DataFrame]) -> Iterator[Macro]:
    for _, arm in tables["arms"].iterrows():
        name = (arm["implementation"], arm["protocol"], "saturation")
        prefix = {"≥": r"\ensuremath{\geq}", "<": r"\ensuremath{<}"}.get(arm["bound"], "")
        yield macro_name(*name), prefix + number(arm["saturation_per_s"]), "requests/s, lambda*"
        for end in ("low", "high"):
            yield macro_name(*name, end), number(arm[f"{end}_per_s"]), f"requests/s, {end} end of its bracket"
            told = f"requests/s, {end} end of its 95 % interval, {arm['interval_replicates']} replicates"
            yield macro_name(*name, "interval", end), number(arm[f"interval_{end}_per_s"]), told


def _point_macros(points: pd.DataFrame) -> Iterator[Macro]:
    for implementation, group in points.groupby("implementation"):
        for index, rate in _numbered(group):
            yield macro_name(implementation, "rate", index), number(rate), "requests/s, arrival rate"
        order = {rate: index for index, rate in _numbered(group)}
        for _, point in group.iterrows():
            for quantile in QUANTILES:
                yield from _estimate_macros(point, quantile, order[point["rate_per_s"]])


def _estimate_macros(point: "pd.Series[Any]", quantile: str, index: int) -> Iterator[Macro]:
    column = metric("response", quantile)
    name = (point["implementation"], point["protocol"], quantile, "rate", index)
    prefix = r"\ensuremath{\geq}" if point[f"{column}_bound"] else ""
    where = f"ms, response time at {number(point['rate_per_s'])} requests/s, {point['verdict']}"
    yield macro_name(*name), prefix + _tex_number(point[column]), where
    for end in ("low", "high"):
        yield macro_name(*name, end), _tex_number(point[f"{column}_{end}"]), f"ms, {end} end of its 95 % interval"


def _ratio_macros(tables: Mapping[str, pd.DataFrame]) -> Iterator[Macro]:
    ratios = headline_ratios(tables)
    for implementation, group in ratios.groupby("implementation"):
        order = {rate: index for index, rate in _numbered(group)}
        for _, row in group.iterrows():
            name = (implementation, "ratio", "p95", "rate", order[row["rate_per_s"]])
            told = f"p95 {NAMES[row['over']]} / {NAMES[row['under']]}, {row['replicates']} pairs"
            yield macro_name(*name), number(row["ratio"]), told
            for end in ("low", "high"):
                yield macro_name(*name, end), number(row[f"ratio_{end}"]), f"{end} end of its 95 % interval"


# ----------------------------------------------------------------------------------------------- table


def table_tex(run: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> str:
    """The text of ``table-f0.tex``: per arm λ*, its bracket, and percentiles at the largest common VALID rate.

    Needs the LaTeX package booktabs. Percentiles are in ms with their 95 % intervals.
    """
    rates = common_rates(tables["points"])
    shares = tables["shares"].set_index(["implementation", "protocol"])
    rows = [_table_row(arm, tables["points"], rates, shares) for _, arm in tables["arms"].iterrows()]
    return "\n".join(
        [
            "% Generated from stored data; do not edit.",
            f"% run_id: {run['run_id']}  commit: {run['commit']}",
            r"\begin{tabular}{llrrrrrr}",
            r"\toprule",
            r"Implementation & Protocol & $\lambda^*$ [bracket] (1/s) & VALID & $\lambda$ (1/s) "
            r"& p50 (ms) & p95 (ms) & p99 (ms) \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _table_row(arm: "pd.Series[Any]", points: pd.DataFrame, rates: Mapping[str, float], shares: pd.DataFrame) -> str:
    key = (arm["implementation"], arm["protocol"])
    sign = {"≥": r"\ensuremath{\geq}", "<": r"\ensuremath{<}"}.get(arm["bound"], "")
    bracket = f" [{number(arm['low_per_s'])}, {number(arm['high_per_s'])}]" if arm["bound"] == "" else ""
    cells = [tex_escape(arm["label"]), NAMES[arm["protocol"]], sign + number(arm["saturation_per_s"]) + bracket]
    cells.append(f"{shares.loc[key, 'valid']}/{shares.loc[key, 'trials']}")
    rate = rates.get(arm["implementation"])
    cells.append("--" if rate is None else number(rate))
    chosen = (points["implementation"] == key[0]) & (points["protocol"] == key[1]) & (points["rate_per_s"] == rate)
    cells += [_cell(points[chosen], metric("response", quantile)) for quantile in QUANTILES]
    return " & ".join(cells) + r" \\"


def _cell(point: pd.DataFrame, column: str) -> str:
    """A value with its interval, or what there is of it."""
    if point.empty:
        return "--"
    value, low, high = (float(point[name].iloc[0]) for name in (column, f"{column}_low", f"{column}_high"))
    sign = r"\ensuremath{\geq}" if point[f"{column}_bound"].iloc[0] else ""
    interval = f" [{number(low)}, {number(high)}]" if np.isfinite(low) else ""
    return sign + _tex_number(value) + interval


# --------------------------------------------------------------------------------------------- helpers


def tex_escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _numbered(group: pd.DataFrame) -> list[tuple[int, float]]:
    """The rates of an implementation with their numbers, from 1."""
    return list(enumerate(sorted(group["rate_per_s"].unique()), start=1))


def _tex_number(value: float) -> str:
    return r"\ensuremath{\infty}" if np.isinf(value) else number(value)


def _spelled(digits: str) -> str:
    """A number in words, without spaces."""
    if len(digits) == 2 and digits[0] not in "01":
        return TENS[int(digits[0])] + ("" if digits[1] == "0" else DIGITS[int(digits[1])])
    return "".join(DIGITS[int(digit)] for digit in digits)
