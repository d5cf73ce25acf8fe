"""A network's number of parameters and of multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.onnx_network import OnnxNetwork
from edgekd.models.trial import answer_of
from edgekd.quantization.quantizers import ActivationQuantizer
from edgekd.runtime.preprocess import InputShape


def cost(model: nn.Module, shape: InputShape) -> dict[str, int]:
    """A network's cost.

    Args:
        model: takes images (B, *shape).
        shape: of the input.

    Returns:
        "parameters", without the scales of quantizers, and "macs": the multiply-accumulates of convolutions and matrix
        products per image.

    Raises:
        ModelError: it cannot compute images of this shape.
    """
    if isinstance(model, OnnxNetwork):
        return model.cost()
    was_training = model.training
    model.eval()
    # With gradients: without them the counter's hooks fail on networks with fused attention.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        answer_of(model, shape)
    model.train(was_training)
    scales = {
        id(scale) for each in model.modules() if isinstance(each, ActivationQuantizer) for scale in each.parameters()
    }
    parameters = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in scales)
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}
