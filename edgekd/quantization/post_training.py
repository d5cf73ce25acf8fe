"""Post-training quantization: from a float network and images to the same network in int8, step by step."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.bias_correction import correct_biases
from edgekd.quantization.calibration import histograms, ranges
from edgekd.quantization.constant_channels import ConstantChannels, fold_constants
from edgekd.quantization.equalize import Equalization, equalize
from edgekd.quantization.float_layers import matching
from edgekd.quantization.placement import Quantized, activation_quantizers, folded, freeze, place

# Images for what needs no more; at once where a layer is computed several times.
EXAMPLES = 64
_AT_ONCE, _COMPARED = 16, 8
# Of the largest output: by how much those of equal images may differ.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class PostTraining:
    """A calibrated network and what was done.

    Attributes:
        quantized: the network, its scales fixed, in eval mode.
        constants: the channels that were folded before.
        equalized: the channels that were rescaled before.
        methods: how many activations each calibration method was used for.
        corrected: how many layers' biases were corrected.
        moves: whether the float network's output depends on the image.
        reference: the float network that was calibrated: folded and rescaled, answering as the one that was given.
        learned: whether the scales can be trained further.
    """

    quantized: Quantized
    constants: ConstantChannels
    equalized: Equalization
    methods: dict[str, int]
    corrected: int
    moves: bool
    reference: fx.GraphModule
    learned: bool = False


def post_training(
    network: nn.Module,
    examples: Tensor,
    batches: Iterable[Tensor],
    method: str,
    keep: Sequence[str] = (),
    *,
    learned: bool = False,
) -> PostTraining:
    """Quantize a copy of a float network; the order of the batches has no influence.

    Args:
        network: on the CPU.
        examples: some of the images (N, C, H, W), EXAMPLES of them; constant channels, equalization, the choice of
            methods and bias correction need no more.
        batches: the images (N, C, H, W) that the scales are calibrated on, read once.
        method: of edgekd.quantization.calibrators, or "auto".
        keep: patterns for what stays in float; see edgekd.quantization.float_layers.matching().
        learned: whether the scales can be trained further; see insert().

    Raises:
        ModelError: torch.fx cannot trace the network, it is quantized already, its activations are not finite, or a
            pattern names nothing in it.
    """
    own = folded(network)
    kept = matching(keep, own)
    moves = _moves(own, examples[:: max(1, len(examples) // _COMPARED)])
    constants = fold_constants(own, examples[::2])
    # In channels_last PyTorch's CPU convolutions take half the time in float32, and eight times as long in float64.
    own, examples = own.to(memory_format=torch.channels_last), _channels_last(examples)
    equalized = equalize(own, examples[:_AT_ONCE], torch.split(examples, _AT_ONCE))
    quantized = place(copy.deepcopy(own), kept, learned=learned)
    found = histograms(own, quantized.placed, map(_channels_last, batches))
    chosen = ranges(own, found, method, examples[:: max(1, len(examples) // _COMPARED)])
    for quantizer in activation_quantizers(quantized.model).values():
        quantizer.calibrate(chosen[quantizer.name].amax)
    freeze(quantized.model)
    positive = {name for name, histogram in found.items() if histogram.lowest >= 0.0}
    corrected = correct_biases(own, quantized.model, positive, torch.split(examples[::2], _AT_ONCE))
    methods = Counter(each.method for each in chosen.values())
    used = dict(methods.most_common())
    return PostTraining(quantized, constants, equalized, used, corrected, moves, own, learned)


def with_float(made: PostTraining, keep: Collection[str]) -> Quantized:
    """A calibrated network in which these operations stay in float, and all else is as it was calibrated.

    Args:
        made: calibrated with everything in int8.
        keep: paths of the operations; see edgekd.quantization.float_layers.

    Raises:
        ModelError: the network has no such operation.
    """
    quantized = place(copy.deepcopy(made.reference), keep, learned=made.learned)
    own, calibrated = quantized.model.state_dict(), made.quantized.model.state_dict()
    # What is kept has its own bias, not one that is corrected for rounding.
    kept = tuple(f"{path}." for path in keep)
    quantized.model.load_state_dict(
        {name: value if name.startswith(kept) else calibrated[name] for name, value in own.items()}
    )
    freeze(quantized.model)
    return quantized


@torch.no_grad()
def _moves(network: nn.Module, images: Tensor) -> bool:
    """Whether outputs differ between images by more than rounding."""
    outputs = network(images)
    moved = (outputs.amax(0) - outputs.amin(0)).max()
    return bool(moved > _ROUNDING * outputs.abs().max())


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
