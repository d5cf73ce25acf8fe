"""Batch norm momentum for short trainings."""

from __future__ import annotations

from torch import nn

_USUAL = 0.1
_MEMORIES = 20.0


def raise_momentum(model: nn.Module, steps: int) -> None:
    """Raise the momentum of batch norms whose running statistics would otherwise lag behind, in place.

    MobileNetV3 and EfficientNet have 0.01, which suits hundreds of thousands of steps: after 300 steps a twentieth of
    the running statistics is still the initial values, and a well trained network answers at random in eval mode.

    Args:
        model: changed in place.
        steps: the number of training steps.
    """
    least = min(_USUAL, _MEMORIES / steps)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, least)
