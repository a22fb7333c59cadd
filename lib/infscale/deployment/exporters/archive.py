"""Export a reference model as a TorchServe model archive (.mar): a TorchScript module and this project's handler."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infscale.deployment.exporters.archiver import archive
from infscale.models import photographs
from infscale.models.export import check_parity, run
from infscale.models.reference import Model, inputs
from infscale.vocabulary import DEVICE


def write(model: Model, folder: Path) -> str:
    """Write the archive and return its name."""
    module = _torch_module(model).eval()
    rows = inputs(model.name, 8)
    # The handler decodes files, so that the module takes pixels.
    batch = torch.from_numpy(photographs.decoded(rows) if model.dtype == "bytes" else rows)
    check_parity(module(batch).detach().numpy(), model, rows, "TorchScript")
    torch.jit.trace(module, batch).save(str(folder / "model.pt"))
    wait_s = float(model.weights["wait_s"][0]) if model.name == DEVICE else 0.0
    signature = {"input_shape": model.input_shape, "dtype": model.dtype, "wait_s": wait_s}
    (folder / "signature.json").write_text(json.dumps(signature))
    files = {"--serialized-file": folder / "model.pt", "--extra-files": folder / "signature.json"}
    return archive(model.name, Path(__file__).with_name("torchserve_handler.py"), folder, files)


def _torch_module(model: Model) -> Any:
    """Return the model as a torch module with the reference's weights."""
    if model.name == "noop":
        return nn.Identity()
    if model.name == DEVICE:

        class First(nn.Module):  # type: ignore[misc]  # torch is untyped here
            """The first ten numbers of each row."""

            def forward(self, x: Any) -> Any:
                return x[:, :10]

        return First()
    weights = {key: torch.from_numpy(value) for key, value in model.weights.items()}

    def linear(weight: str, bias: str) -> Any:
        layer = nn.Linear(*weights[weight].shape)
        layer.weight.data, layer.bias.data = weights[weight].T.contiguous(), weights[bias]
        return layer

    def conv(kernel: str, bias: str) -> list[Any]:
        layer = nn.Conv2d(weights[kernel].shape[2], weights[kernel].shape[3], 3)
        layer.weight.data, layer.bias.data = weights[kernel].permute(3, 2, 0, 1).contiguous(), weights[bias]
        return [layer, nn.ReLU(), nn.MaxPool2d(2)]

    if model.name in ("image", "photo"):

        class Blocks(nn.Module):  # type: ignore[misc]  # torch is untyped here
            """Means of blocks of pixels in [0, 1]: (n, 224, 224, 3) → (n, 147)."""

            def forward(self, x: Any) -> Any:
                return x.float().reshape(-1, 7, 32, 7, 32, 3).mean((2, 4)).flatten(1) / 255

        return nn.Sequential(Blocks(), linear("dense", "bias"), nn.Softmax(-1))
    if model.name == "mlp":
        return nn.Sequential(linear("dense1", "bias1"), nn.ReLU(), linear("dense2", "bias2"), nn.Softmax(-1))

    class ChannelsLast(nn.Module):  # type: ignore[misc]  # torch is untyped here
        """Flatten as the reference does: (n, c, h, w) → (n, h·w·c)."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    convolutions = [*conv("conv1", "bias1"), *conv("conv2", "bias2")]
    first = nn.Unflatten(1, (1, 28))
    return nn.Sequential(first, *convolutions, ChannelsLast(), linear("dense3", "bias3"), nn.Softmax(-1))


if __name__ == "__main__":
    run(write)
