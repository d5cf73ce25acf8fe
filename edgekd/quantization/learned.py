"""An activation quantizer whose step size is trained: LSQ (Esser et al. 2020, Learned Step Size Quantization).

The step begins as calibrated. Its gradient (equation 3) is divided by sqrt(N * 127) for N values of an image (section
2.2), so that steps move about as fast, relative to their size, as weights do.

Weights keep the scale of their largest value. With one step per channel their largest value lies at the end of the
grid, where the gradient is 127 times that of the weight, and a depthwise layer has nine values per channel to divide it
by: steps were seen to fall below 0 within 60 updates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.quantization.quantizers import HIGHEST, LOWEST, SMALLEST_SCALE, ActivationQuantizer, scale_of


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
        # The values of one image: the loss is a mean over the batch.
        factor = 1.0 / math.sqrt(values[:1].numel() * HIGHEST)
        result: Tensor = _LearnedRounding.apply(values, self.scale, self.zero_point, factor)
        return result


def _positive(step: Tensor) -> Tensor:
    """The step, but never 0 or less; the gradient is that of the step all the same, so that it can grow again."""
    return step + (step.detach().clamp_min(SMALLEST_SCALE) - step.detach())


class _LearnedRounding(torch.autograd.Function):
    """Quantize and dequantize; backward to the values (equation 5) and to the scale (equation 3)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(values, scale)
        ctx.factor = factor
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, LOWEST, HIGHEST)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (gradient,), (values, scale) = gradients, ctx.saved_tensors
        steps = values / scale
        inside = (steps > LOWEST) & (steps < HIGHEST)
        of_scale = None
        if ctx.needs_input_grad[1]:
            # Inside the range what rounding added, outside of it the last step.
            slope = steps.clamp(LOWEST, HIGHEST).round_().addcmul_(steps, inside, value=-1)
            of_scale = (gradient * slope).sum() * ctx.factor
        return gradient * inside, of_scale, None, None
