"""Quantizers whose step sizes are trained with the weights: LSQ (Esser et al. 2020, Learned Step Size Quantization).

A step begins as calibrated. Its gradient (equation 3) is divided by sqrt(N * 127) for N values that share the step
(section 2.2), so that steps move about as fast, relative to their size, as weights do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.quantization.quantizers import (
    HIGHEST,
    LOWEST,
    SMALLEST_SCALE,
    ActivationQuantizer,
    WeightQuantizer,
    scale_of,
)


class LearnedActivationQuantizer(ActivationQuantizer):
    """One trained step size per tensor. Its state is `step` and `seen`; until it is calibrated, it observes values."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        del self.amax
        self.step = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """Scalar float32, on which gradients reach `step`."""
        return _positive(self.step)

    @torch.no_grad()
    def calibrate(self, amax: float | Tensor) -> None:
        self.step.copy_(scale_of(torch.as_tensor(amax)))
        self.seen.fill_(True)

    def freeze(self) -> None:
        super().freeze()
        self.step.requires_grad_(False)

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        if not (self._known_seen or bool(self.seen)):
            self.calibrate(values.abs().amax())
        self._known_seen = True

    def quantized(self, values: Tensor) -> Tensor:
        # The number of values of one image: the loss is a mean over the batch.
        return _learnable(values, self.scale, values[:1].numel(), None)


class LearnedWeightQuantizer(WeightQuantizer):
    """One trained step size per output channel, which the bias may raise as in WeightQuantizer.

    Args:
        weight: from which the steps begin.
        axis: of the output channels.
    """

    def __init__(self, weight: Tensor, axis: int = 0) -> None:
        super().__init__(axis)
        self.step = nn.Parameter(super().own_scale(weight))

    def own_scale(self, weight: Tensor) -> Tensor:
        return _positive(self.step)

    def freeze(self) -> None:
        self.step.requires_grad_(False)

    def forward(self, weight: Tensor) -> Tensor:
        return _learnable(weight, self.scale(weight), weight.numel() // weight.shape[self.axis], self.axis)


def _positive(step: Tensor) -> Tensor:
    """The step, but never 0 or less; the gradient is that of the step all the same, so that it can grow again."""
    return step + (step.detach().clamp_min(SMALLEST_SCALE) - step.detach())


def _learnable(values: Tensor, scale: Tensor, sharing: int, axis: int | None) -> Tensor:
    factor = 1.0 / math.sqrt(sharing * HIGHEST)
    result: Tensor = _LearnedRounding.apply(values, scale, factor, axis)
    return result


class _LearnedRounding(torch.autograd.Function):
    """Quantize and dequantize; backward to the values (equation 5) and to the scale (equation 3)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, factor: float, axis: int | None) -> Tensor:
        ctx.save_for_backward(values, scale)
        ctx.factor, ctx.axis = factor, axis
        zero = torch.zeros_like(scale, dtype=torch.int32)
        if axis is None:
            return torch.fake_quantize_per_tensor_affine(values, scale, zero, LOWEST, HIGHEST)
        return torch.fake_quantize_per_channel_affine(values, scale, zero, axis, LOWEST, HIGHEST)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (gradient,), (values, scale) = gradients, ctx.saved_tensors
        shape = [1] * values.ndim
        if ctx.axis is not None:
            shape[ctx.axis] = -1
        steps = values / scale.reshape(shape)
        inside = (steps > LOWEST) & (steps < HIGHEST)
        if not ctx.needs_input_grad[1]:
            return gradient * inside, None, None, None
        # Inside the range what rounding added, outside of it the last step.
        slope = steps.clamp(LOWEST, HIGHEST).round_().addcmul_(steps, inside, value=-1)
        summed = (gradient * slope).sum([dim for dim in range(values.ndim) if dim != ctx.axis])
        return gradient * inside, summed.reshape(scale.shape) * ctx.factor, None, None
