"""Quantize-dequantize on symmetric int8 grids: q = clip(round(x / scale), -128, 127), zero point 0, scale = amax / 127.

Gradients use the straight-through estimator: unchanged within the grid's range, zero where a value was clipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError

LOWEST, HIGHEST = -128, 127
# Weight of each new batch's absolute maximum in the running mean.
_MOMENTUM = 0.05
# Engines require scales above 0, also for a channel of zeros.
SMALLEST_SCALE = torch.finfo(torch.float32).eps
# ONNX Runtime rounds a layer's float bias to int32 steps of scale(input) * scale(weight), and adds the products to it.
# Half of the int32 range is the bias's; the other half holds the products of 32,896 inputs (2**30 / (255 * 128)).
_BIAS_STEPS = 2**30
# The graph with uint8 activations has finer input steps where a value is never below 0 (with_unsigned_activations).
FINEST_INPUT = HIGHEST / 255


def scale_of(amax: Tensor) -> Tensor:
    """The size of one int8 step for absolute maxima of any shape; same shape, always above 0."""
    return (amax / HIGHEST).clamp_min(SMALLEST_SCALE)


class ActivationQuantizer(nn.Module):
    """One scale per tensor, from a running mean of the tensor's absolute maximum.

    It observes values in training mode until it is frozen, and never in eval mode. Its state is `amax` and `seen`, so
    that a loaded network in eval mode computes what the saved one did.

    Args:
        name: of the quantized value, for messages.

    Attributes:
        frozen: whether the scale is fixed in training mode too.
        fused: whether the value is only observed, and returned as it is; see edgekd.quantization.placement.
    """

    amax: Tensor
    seen: Tensor
    zero_point: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.frozen = False
        self.fused = False
        self._known_seen = False
        self.register_buffer("amax", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=False)

    @property
    def scale(self) -> Tensor:
        """Scalar float32."""
        return scale_of(self.amax)

    def calibrate(self, amax: float | Tensor) -> None:
        """Set the value that becomes step 127."""
        self.amax.fill_(amax)
        self.seen.fill_(True)

    def freeze(self) -> None:
        """Fix the scale, in training mode too.

        Raises:
            ModelError: it has seen no values.
        """
        self._require_seen()
        self.frozen = True

    def forward(self, values: Tensor) -> Tensor:
        """Quantize and dequantize a tensor of any shape, unless it is fused; shape, dtype and memory format are kept.

        Raises:
            ModelError: in eval mode or frozen, and it has seen no values.
        """
        if self.training and not self.frozen:
            self._observe(values)
        else:
            self._require_seen()
        return values if self.fused else self.quantized(values)

    def quantized(self, values: Tensor) -> Tensor:
        """What forward() returns, without its checks."""
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, LOWEST, HIGHEST)

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        low, high = torch.aminmax(values.detach())
        newest = torch.maximum(-low, high).to(self.amax.dtype)
        # No branch on `seen`: reading it would synchronise a GPU in every step.
        self.amax.copy_(torch.where(self.seen, torch.lerp(self.amax, newest, _MOMENTUM), newest))
        self.seen.fill_(True)

    def _require_seen(self) -> None:
        # Checked once: reading `seen` synchronises a GPU.
        self._known_seen = self._known_seen or bool(self.seen)
        if not self._known_seen:
            raise ModelError(
                f"the quantizer of {self.name} has seen no values",
                hint="train the network, or calibrate it on images, before it is evaluated, frozen or saved",
            )


class WeightQuantizer(nn.Module):
    """One scale per output channel, from the current weight; for torch.nn.utils.parametrize.

    The scale of a channel with tiny weights and a large bias is raised until the int32 bias that engines compute with
    fits. Its weights become coarse steps, or zeros, which changes its output by less than 1e-7 of its bias per input.

    Args:
        axis: of the output channels: 0, or 1 for a transposed convolution.
    """

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        # In a tuple, so that neither becomes a submodule: the layer contains this quantizer.
        self._fits: tuple[nn.Module, tuple[ActivationQuantizer, ...]] | None = None

    def fit_bias(self, layer: nn.Module, inputs: Sequence[ActivationQuantizer]) -> None:
        """Raise scales to what a layer's bias needs, for its current bias and input scales at each use.

        Args:
            layer: whose weight this quantizes.
            inputs: the quantizers of its input; several where it runs more than once.
        """
        self._fits = layer, tuple(inputs)

    def scale(self, weight: Tensor) -> Tensor:
        """(channels,) float32."""
        others = [dim for dim in range(weight.ndim) if dim != self.axis]
        scale = scale_of(weight.detach().abs().amax(others).float())
        least = self._least(len(scale))
        return scale if least is None else torch.maximum(scale, least)

    def _least(self, channels: int) -> Tensor | None:
        """(channels,): the scales with which the bias has _BIAS_STEPS steps."""
        if self._fits is None or not self._fits[1]:
            return None
        layer, inputs = self._fits
        if not isinstance(bias := layer.bias, Tensor):
            return None
        # The groups of a transposed convolution share scales.
        largest = bias.detach().abs().float().reshape(-1, channels).amax(0)
        finest = torch.stack([each.scale.detach() for each in inputs]).min() * FINEST_INPUT
        return largest / (finest * _BIAS_STEPS)

    def forward(self, weight: Tensor) -> Tensor:
        scale = self.scale(weight)
        zero_points = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_points, self.axis, LOWEST, HIGHEST)
