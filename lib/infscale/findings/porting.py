"""Porting (F5): what changes when the same weights are served by another framework, and so by another runtime?"""

import math

from infscale.analysis.tables import Tables
from infscale.experiment.design.arm import Arm
from infscale.findings.finding import Blocks, Finding, compared
from infscale.records.runs import Run
from infscale.vocabulary import FRAMEWORK_NAMES

ALIKE = 1e-5
"""Largest absolute difference at which two implementations of the same float32 arithmetic answer alike."""

STEPS = {
    "TensorFlow Serving": "Copy the weights into TensorFlow constants, wrap the model in tf.function with a signature, "
    "and save it with tf.saved_model.save in a numbered folder; nothing else needs to be configured.",
    "TorchServe": "Copy the weights, transposed, into a torch module and compile it with torch.jit.trace. Write a "
    "handler that decodes and encodes every content type. Pack both into a .mar file with torch-model-archiver, and "
    "write TorchServe's configuration file.",
    "Triton": "Save the weights in an .npz file. Write the forward pass in numpy as model.py, for the Python backend "
    "(the only one in the package from PyPI). Write config.pbtxt with names, types, shapes and the largest batch.",
}
"""Framework → what its exporter and its deployment do, in sentences."""


def blocks(profile: str) -> Blocks:
    """Return the same weights on every framework, a block for each protocol and model."""
    frameworks = ["torchserve", "triton"] if profile == "tiny" else list(FRAMEWORK_NAMES)
    protocols = ["grpc"] if profile == "tiny" else ["rest", "grpc"]
    models = ["noop", "mlp", "cnn"] if profile == "full" else ["mlp"]
    return [
        [Arm(protocol, framework=framework, model=model) for framework in frameworks]
        for model in models
        for protocol in protocols
    ]


def answer(run: Run, tables: Tables) -> list[str]:
    """Return how far the outputs differ from the reference, the steps of porting, and a sentence for each arm."""
    steps = [f"Steps to port to {name}: {text}" for name, text in STEPS.items()]
    return [*_outputs(run), *steps, *compared(run, tables)]


def _outputs(run: Run) -> list[str]:
    worst: dict[str, float] = {}
    for pilot in run.manifest.pilot.values():
        most = max((math.inf if one is None else one for one in pilot.differences.values()), default=0.0)
        worst[pilot.implementation] = max(most, worst.get(pilot.implementation, 0.0))
    if not any(pilot.differences for pilot in run.manifest.pilot.values()):
        return []
    outputs = ", ".join(f"{value:.1e} for {run.system(name)}" for name, value in worst.items())
    alike = "answer alike" if max(worst.values()) < ALIKE else "do not answer alike"
    return [
        f"The same weights {alike} (accepted: {ALIKE:.0e}): the largest absolute difference from the numpy reference "
        f"over all protocols and encodings is {outputs}."
    ]


FINDING = Finding(
    name="porting",
    question="What changes when the same weights are served by another framework, and so by another runtime?",
    blocks=blocks,
    answer=answer,
    lead=lambda run, tables: _outputs(run),
    notebook="16-porting",
)
