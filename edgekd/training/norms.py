"""Batch norms whose running statistics keep up with a short training."""

from __future__ import annotations

from torch import nn

_USUAL = 0.1
_MEMORIES = 20.0


def keep_up(model: nn.Module, steps: int) -> None:
    """Raise the momentum of batch norms that would still remember the random start at the end, in place.

    MobileNetV3 and EfficientNet come with 0.01, made for hundreds of thousands of steps: after 300 their running
    statistics are still a twentieth the first ones, and the network that trained well answers at random in eval mode.
    """
    least = min(_USUAL, _MEMORIES / steps)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, least)
