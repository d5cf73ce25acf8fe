"""What a network costs to keep and to run."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def cost(model: nn.Module, image_size: int) -> dict[str, int]:
    """Parameters, and multiply-accumulates (MACs) of convolutions and matrix products for one image."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # Not without gradients: the counter's hooks stumble over networks with fused attention then.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size, device=device))
    model.train(was_training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}
