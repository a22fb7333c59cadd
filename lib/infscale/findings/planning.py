"""Planning: do service times measured on one replica say what more of them, behind a balancer, would do?"""

import numpy as np
import pandas as pd

from infscale.analysis.planning.validation import WITHIN, validation_table
from infscale.analysis.tables import Tables
from infscale.experiment.design.arm import Arm
from infscale.experiment.design.labels import framework
from infscale.findings.finding import Blocks, Finding, compared
from infscale.records.runs import Run
from infscale.report.figures.arms import predictions as drawing
from infscale.report.figures.arms.summary import SUMMARY
from infscale.report.figures.picture import Picture
from infscale.report.wording import with_interval
from infscale.vocabulary import DEVICE, number

# ---------------------------------------------------------------------------------------------- arms


def blocks(profile: str) -> Blocks:
    """Return replicas of a model that waits and of one that computes, behind Envoy.

    Each number of replicas of the model that waits is a block of its own, so that it is loaded at shares of what it can
    take; those of the model that computes can take about the same, since they share the machine's cores. Most arms are
    compared with a prediction and not with another arm. All stand behind Envoy, one replica too: its hop is then part
    of the times that are measured on one.
    """
    triton = [
        [_arm("triton", DEVICE, 1)],
        [_arm("triton", DEVICE, 2), _arm("triton", DEVICE, 2, "envoy-least-request")],
    ]
    if profile == "tiny":
        return triton
    four = _arm("triton", DEVICE, 4, "envoy-least-request")
    others = [[_arm("torchserve", DEVICE, count)] for count in (1, 2)]
    computing = [_arm("triton", "cnn", count) for count in (1, 2)]
    if profile == "quick":
        return [*triton, [four], *others, computing]
    by_connection = [_arm("triton", DEVICE, count, "envoy-l4") for count in (2, 4)]
    return [
        triton[0],
        [*triton[1], by_connection[0]],
        [_arm("triton", DEVICE, 4), four, by_connection[1]],
        *others,
        [_arm("torchserve", DEVICE, 4)],
        [*computing, _arm("triton", "cnn", 4)],
    ]


def _arm(framework: str, model: str, replicas: int, balancer: str = "envoy-round-robin") -> Arm:
    return Arm("grpc", framework=framework, model=model, front="balanced", replicas=replicas, balancer=balancer)


# -------------------------------------------------------------------------------------------- answer


def lead(run: Run, tables: Tables) -> list[str]:
    """Return how many predictions of each model and framework are within the limit."""
    return _counted(validation_table(run, tables))


def answer(run: Run, tables: Tables) -> list[str]:
    """Return how many predictions are right, what is simulated, each that is not, and the contrasts."""
    table = validation_table(run, tables)
    return [*_counted(table), *_simulated(table), *_missed(table), *compared(run, tables)]


def _counted(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each framework and model on its predictions, the service times' own point aside."""
    if table.empty:
        return ["No arm could be predicted: that needs VALID trials of one replica, and of several."]
    sentences = []
    others = table[~table["own"]]
    for (name, model), own in others.groupby(["framework", "model"], sort=False):
        right = int(own["within"].sum())
        sentences.append(
            f"{framework(Arm('grpc', framework=str(name)))}, {model}: of {len(own)} p95 response times that were "
            f"predicted by simulation from the service times of one replica, {right} are within {100 * WITHIN:.0f} % "
            f"of the measured ones (predicted ÷ measured from {number(own['ratio'].min())} to "
            f"{number(own['ratio'].max())}, utilisation {100 * own['utilisation'].min():.0f} to "
            f"{100 * own['utilisation'].max():.0f} %)."
        )
    return sentences


def _simulated(table: pd.DataFrame) -> list[str]:
    """Return what is simulated, which is not what is measured."""
    sentences = []
    if not table.empty and table["cores"].isna().any():
        sentences.append(
            "A model that waits is simulated with a device for each replica, which no other slows down; the processors "
            "that servers, balancer and client share are not simulated."
        )
    computing = table[table["cores"].notna()] if not table.empty else table
    if not computing.empty:
        sentences.append(
            f"The replicas of a model that computes share the machine's cores, and are simulated so: "
            f"{number(computing['cores'].min())} to {number(computing['cores'].max())} of them, less what requests use "
            "outside of the workers at that rate, each busy worker alike."
        )
    return sentences


def _missed(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each prediction that is not within the limit, with what its median tells of the reason."""
    if table.empty:
        return []
    return [
        f"{row['label']} at {number(row['rate_per_s'])} requests/s: predicted "
        f"{with_interval(row['predicted_ms'], row['predicted_ms_low'], row['predicted_ms_high'])} ms, measured "
        f"{with_interval(row['measured_ms'], row['measured_ms_low'], row['measured_ms_high'])} ms; {_reason(row)}."
        for _, row in table[~table["within"] & ~table["own"]].iterrows()
    ]


def _reason(row: "pd.Series[float]") -> str:
    """Return what speaks for which reason; the reason itself is not measured."""
    ratio = row["predicted_p50_ms"] / row["measured_p50_ms"]
    median = f"predicted ÷ measured median {number(ratio)}"
    if np.isnan(row["predicted_ms_low"]):
        busy = f"{100 * row['utilisation']:.0f} %"
        return f"at a utilisation of {busy} the simulation does not know it, so that it may be chance ({median})"
    if np.isnan(row["measured_ms_low"]):
        return f"measured in fewer than three lifetimes and without an interval, so that it may be chance ({median})"
    if row["measured_ms_low"] <= row["predicted_ms_high"] and row["predicted_ms_low"] <= row["measured_ms_high"]:
        return f"the two intervals overlap, so that the difference may be chance ({median})"
    if not row["hop"]:
        return f"the balancer's hop is not in the service times ({median})"
    if abs(ratio - 1) > WITHIN:
        return f"every request takes longer or shorter than on one replica, not only those that queue ({median})"
    return f"the median is right, so that queueing or rare delays differ ({median})"


def predictions(run: Run, tables: Tables) -> pd.DataFrame:
    """Return the predictions as :func:`infscale.report.figures.arms.predictions.draw` takes them."""
    return validation_table(run, tables).assign(limit=WITHIN)


PREDICTIONS = Picture(
    "predictions",
    predictions,
    drawing.draw,
    lambda _, __: drawing.CAPTION.format(limit=100 * WITHIN),
    drawing.ALTERNATIVE,
)

FINDING = Finding(
    name="planning",
    question="Do service times measured on one replica say what more of them, behind a balancer, would do?",
    blocks=blocks,
    answer=answer,
    lead=lead,
    pictures=(SUMMARY, PREDICTIONS),
    notebook="21-planning",
    sizes={
        "tiny": {"curve": 1},
        "quick": {"curve": 1, "requests": 150, "least": 3, "budget_s": 900.0},
        "full": {"curve": 2},
    },
)
