"""A network's number of parameters and of multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.errors import ModelError, summary
from edgekd.models.onnx_network import OnnxNetwork
from edgekd.runtime.preprocess import InputShape


def cost(model: nn.Module, shape: InputShape) -> dict[str, int]:
    """A network's cost.

    Args:
        model: takes images (B, *shape).
        shape: of the input.

    Returns:
        "parameters", and "macs": the multiply-accumulates of convolutions and matrix products per image.

    Raises:
        ModelError: it cannot compute images of this shape.
    """
    if isinstance(model, OnnxNetwork):
        return model.cost()
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # With gradients: without them the counter's hooks fail on networks with fused attention.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        _run(model, shape, device)
    model.train(was_training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}


def _run(model: nn.Module, shape: InputShape, device: torch.device) -> None:
    try:
        model(torch.zeros(1, *shape, device=device))
    # The network's own code runs here, which may raise anything: of a layer whose input is too small, for example.
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot compute images of {shape}",
            found=summary(error),
            hint="set data.image_size to the size that it was made for, or its arguments (timm: img_size) to this one",
        ) from error
