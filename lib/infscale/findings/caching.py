"""Caching (F2): what does a cache gain where requests repeat, and what does it cost where they do not?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infscale.analysis.intervals import Interval
from infscale.analysis.tables import Tables
from infscale.analysis.tables.ratios import Ratios
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import labels
from infscale.findings.finding import Blocks, Finding, column, compared, counterpart, measured
from infscale.records.runs import Run
from infscale.report.figures.arms import caching as drawing
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.arms.usage import COSTS
from infscale.report.figures.picture import Picture
from infscale.report.wording import ratio_text
from infscale.vocabulary import number

QUICK_REPEATS, FULL_REPEATS = (0.0, 0.5, 0.75), (0.0, 0.25, 0.5, 0.75, 0.95)
"""Fractions of requests that repeat, of the gateway's cache."""

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return a cache in a gateway and in the server, at several fractions of requests that repeat."""
    if profile != "full":
        block = _block("cnn", "grpc", QUICK_REPEATS, (0.0, 0.75))
        return [block[:2] if profile == "tiny" else block]
    return [
        [*_block(model, protocol, FULL_REPEATS, (0.0, 0.5, 0.95)), *_more(model, protocol)]
        for model in ("noop", "mlp", "cnn")
        for protocol in ("rest", "grpc")
    ]


def _block(model: str, protocol: str, gateway: Sequence[float], server: Sequence[float]) -> list[Arm]:
    """Return no cache, then a gateway's and the server's own at fractions of repeats."""
    return [
        Arm(protocol, repeat=0.0, framework="triton", model=model),
        *(_gateway(model, protocol, repeat=repeat) for repeat in gateway),
        *(Arm(protocol, repeat=repeat, framework="triton", model=model, cache=True) for repeat in server),
    ]


def _more(model: str, protocol: str) -> list[Arm]:
    """Return requests that are popular by Zipf's law, and a gateway that keeps answers in Redis."""
    return [_gateway(model, protocol, zipf=1.0), _gateway(model, protocol, repeat=0.95, store="redis")]


def _gateway(
    model: str, protocol: str, repeat: float | None = None, zipf: float | None = None, store: str = "memory"
) -> Arm:
    return Arm(protocol, repeat=repeat, zipf=zipf, framework="triton", model=model, front="cache", store=store)


# -------------------------------------------------------------------------------------------- answer


@dataclass(frozen=True)
class Gain:
    """The saturation rate with a cache ÷ without, at one fraction of repeats.

    Attributes:
        arm, without: numbers of the arm with the cache and of the one without.
        repeat, hit_ratio: fractions of requests that repeat, and that were answered by the cache.
        ratio: the gain.
    """

    arm: int
    without: int
    repeat: float
    hit_ratio: float
    ratio: Interval


def gains(run: Run, tables: Tables) -> dict[tuple[int, str], list[Gain]]:
    """Return the gains by arm without a cache and by the cache's store, by rising fraction of repeats.

    The store is a level of the factor ``store``: "" for a cache in the server.
    """
    ratios, hits = Ratios(run.manifest, tables.trials), column(tables, "hit_ratio")
    groups: dict[tuple[int, str], list[Gain]] = {}
    for measured_arm in run.measured:
        arm = run.manifest.design.arms[measured_arm]
        if arm.repeat is None or not (arm.cache or arm.front == "cache"):
            continue
        without = counterpart(run, measured_arm, front="", store="", cache=False, repeat=0.0)
        if without is not None:
            gain = Gain(measured_arm, without, arm.repeat, hits[measured_arm], ratios.capacity(measured_arm, without))
            groups.setdefault((without, arm.store), []).append(gain)
    return {key: sorted(group, key=lambda gain: gain.repeat) for key, group in groups.items()}


def lead(run: Run, tables: Tables) -> list[str]:
    """Return a sentence on the gain of every cache, the fraction of repeats that it needs, and its cost."""
    groups = gains(run, tables)
    titles = _titles(run, groups)
    return [
        _cache(run, tables, ", ".join(filter(None, (titles[without], f"cache {drawing.PLACES[store]}"))), group)
        for (without, store), group in groups.items()
    ]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return sentences on the gain of every cache, on staleness, and on each arm."""
    return [*lead(run, tables), *_staleness(run), *compared(run, tables)]


def _titles(run: Run, groups: dict[tuple[int, str], list[Gain]]) -> dict[int, str]:
    """Return what tells the arms without a cache apart, by their numbers; "" where there is one."""
    arms = list(dict.fromkeys(without for without, _ in groups))
    if len(arms) < 2:
        return dict.fromkeys(arms, "")
    return dict(zip(arms, labels([run.manifest.design.arms[arm] for arm in arms]), strict=True))


def _cache(run: Run, tables: Tables, subject: str, group: list[Gain]) -> str:
    parts = [
        f"at {100 * gain.repeat:.0f} % repeats (hit ratio {number(gain.hit_ratio)}) "
        f"{ratio_text('the saturation rate', gain.ratio, 'that without a cache')}"
        for gain in group
    ]
    price = _price(run, tables, group[0]) if group[0].repeat == 0 else ""
    return f"{subject}: {'; '.join(parts)}. {break_even(group)}{price}"


def _price(run: Run, tables: Tables, gain: Gain) -> str:
    """Return what a cache costs where nothing repeats: time, CPU and memory."""
    slower = Ratios(run.manifest, tables.trials).ratio(gain.arm, gain.without)
    cpu, usage = column(tables, "cpu_us_gateway")[gain.arm], tables.usage
    memory = usage[(usage["arm"] == gain.arm) & (usage["group"] == "gateway")]["rss_bytes"].max()
    costs = [f"{measured(tables, 'cpu_us_gateway', gain.arm)} µs of its CPU a request"] if np.isfinite(cpu) else []
    costs += [f"{number(memory / 1e6)} MB of memory"] if np.isfinite(memory) else []
    gateway = f", and the gateway takes {' and '.join(costs)}" if costs else ""
    time = ratio_text("the p95 response time", slower, "that without a cache")
    return f" Where nothing repeats, {time}{gateway}."


def _staleness(run: Run) -> list[str]:
    """Return what a cache answered after the model behind it was swapped."""
    return [
        f"After a model swap behind a warm cache, {row.stale} of {row.asked} answers were the old model's {when}."
        for when, row in run.manifest.staleness.items()
    ]


def break_even(group: Sequence[Gain]) -> str:
    """Return in words below which fraction of repeats a cache loses, and above which it gains.

    By the time per request at the saturation rate, which falls in proportion to hits: where 1 ÷ gain − 1 crosses 0,
    between fractions on a straight line. Of the ends of the intervals the same: it loses where even the high end is
    below 1, and gains where even the low end is above.

    Args:
        group: gains by rising fraction of repeats.
    """
    known = [gain for gain in group if np.isfinite([gain.ratio.low, gain.ratio.high]).all()]
    if len(known) < 2:
        return "Break-even unknown: fewer than two fractions of repeats could be judged."
    repeats = [gain.repeat for gain in known]
    loses, middle, gains = (
        _crossing(repeats, [1 / getattr(gain.ratio, end) - 1 for gain in known]) for end in ("high", "value", "low")
    )
    lowest = f"{100 * repeats[0]:.0f} % repeats{', the lowest that could be judged' if repeats[0] else ''}"
    if np.isinf(loses):
        return "Break-even: never; the cache loses at every fraction of repeats that was tried."
    if gains == 0:
        return f"Break-even: none; the cache gains at {lowest}, and above."
    place = f"at about {100 * middle:.0f} % repeats"
    place = "beyond what was tried" if np.isinf(middle) else place if middle else f"at or below {lowest}"
    below = f"loses below {100 * loses:.0f} %" if loses else "is not certain to lose anywhere"
    above = "is not certain to gain at any that was tried" if np.isinf(gains) else f"gains above {100 * gains:.0f} %"
    return f"Break-even {place}: by the 95 % intervals the cache {below}, and {above}."


def _crossing(repeats: ArrayLike, lost: ArrayLike) -> float:
    """Return where ``lost`` falls to 0: 0 if it never was above, ∞ if it does not within ``repeats``."""
    at, above = np.asarray(repeats, dtype=float), np.asarray(lost, dtype=float)
    if not np.isfinite(above).all():
        return float("nan")
    if above[0] <= 0:
        return 0.0
    below = np.flatnonzero(above <= 0)
    if not below.size:
        return float("inf")
    k = int(below[0])
    return float(at[k - 1] + (at[k] - at[k - 1]) * above[k - 1] / (above[k - 1] - above[k]))


# ------------------------------------------------------------------------------------------- picture


def gain_numbers(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the gains as :func:`infscale.report.figures.arms.caching.draw` takes them."""
    groups = gains(run, tables)
    titles = _titles(run, groups)
    rows = [
        {
            "run_id": run.id,
            "panel": titles[without],
            "store": store,
            "arm": gain.arm,
            "repeat": gain.repeat,
            "hit_ratio": gain.hit_ratio,
            "gain": gain.ratio.value,
            "gain_low": gain.ratio.low,
            "gain_high": gain.ratio.high,
        }
        for (without, store), group in groups.items()
        for gain in group
        if np.isfinite(gain.ratio.value)
    ]
    return pd.DataFrame(rows)


GAIN = Picture("gain", gain_numbers, drawing.draw, lambda _, __: drawing.CAPTION, drawing.ALTERNATIVE)

FINDING = Finding(
    name="caching",
    question="What does a cache gain where requests repeat, and what does it cost where they do not?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=(SUMMARY, GAIN, COSTS),
    notebook="13-caching",
    beside=("staleness",),
)
