"""Cross-layer equalization: rescales channels between layers, so that those of a tensor have similar ranges.

Int8 has one scale per tensor of activations and one per row of weights. A channel whose range is a hundredth of its
neighbours' has one step left of 127; the network computes the same with that channel a hundred times as large. Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, balances the weights'
ranges on both sides of a channel. Here every row of a weight has its own scale, so what is balanced is what shares one:
a channel's range among the activations, measured on images, and its share of the rows that read it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.channels.rescaling import Rescaling, rescale, trace
from edgekd.errors import summary
from edgekd.quantization.operations import WEIGHTED
from edgekd.runtime.preprocess import InputShape

# Of the largest output: the most by which rounding may change the rescaled network.
_SAME = 1e-5

_Factors = dict[int, float]


@dataclass(frozen=True)
class Equalization:
    """What equalization did.

    Attributes:
        channels: how many were rescaled.
        difference: the largest change of an output, relative to the largest output.
        refused: why the network was left as it was; None otherwise.
    """

    channels: int
    difference: float
    refused: str | None = None


def equalize(network: nn.Module, examples: Tensor, batches: Iterable[Tensor]) -> Equalization:
    """Equalize a network in place; it computes the same up to rounding, which is verified.

    Args:
        network: in eval mode, on the CPU, its batch norms folded.
        examples: images (N, C, H, W) on which the outputs are compared.
        batches: images (N, C, H, W) on which the channels' ranges are measured; their order has no influence.

    Returns:
        What was done. The network is left as it was where its channels cannot be followed, or its outputs change.
    """
    before = copy.deepcopy(network.state_dict())
    expected = _outputs(network, examples)
    try:
        rescaling = trace(network, InputShape(*examples.shape[1:]))
    # Runs the network's own code on a single image, which may raise anything.
    except Exception as error:
        return Equalization(0, 0.0, f"its channels cannot be followed: {summary(error)}")
    rescaling = _of_layers_only(network, rescaling)
    if not rescaling.free:
        return Equalization(0, 0.0)
    ranges = _ranges(network, rescaling, batches)
    if ranges is None:
        return Equalization(0, 0.0, "a value is not finite on an image")
    alive = {channel for channel in rescaling.free if ranges.get(channel, 0.0) > 0.0}
    groups = _groups(rescaling)
    rescale(network, rescaling, _centred({channel: ranges[channel] for channel in alive}, groups))
    rescale(network, rescaling, _centred(_balance(network, rescaling, alive), groups))
    difference = float((_outputs(network, examples) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= _SAME:
        network.load_state_dict(before)
        return Equalization(0, difference, f"rescaled, its outputs differ by {difference:.1e} of the largest")
    return Equalization(len(alive), difference)


@torch.no_grad()
def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = network(images)
    return outputs


def _of_layers_only(network: nn.Module, rescaling: Rescaling) -> Rescaling:
    """Without the channels of weights that are no layer's own, whose inputs no hook sees."""
    modules = dict(network.named_modules())
    layers = {name for name in rescaling.layers if isinstance(modules.get(name.removesuffix(".weight")), WEIGHTED)}
    others = {
        label
        for name, layer in rescaling.layers.items()
        if name not in layers
        for label in [*layer.read.tolist(), *layer.outputs.tolist()]
    }
    return Rescaling(rescaling.layers, rescaling.biases, rescaling.free - others)


def _ranges(network: nn.Module, rescaling: Rescaling, batches: Iterable[Tensor]) -> _Factors | None:
    """The largest absolute value of every free channel, of all that layers read; None where one is not finite."""
    largest: dict[str, Tensor] = {}
    with _watched(network, rescaling, largest), torch.inference_mode():
        for images in batches:
            network(images)
    found: _Factors = defaultdict(float)
    if not all(bool(values.isfinite().all()) for values in largest.values()):
        return None
    for name, values in largest.items():
        for channel, value in zip(rescaling.layers[name].read.tolist(), values.tolist(), strict=True):
            if channel in rescaling.free:
                found[channel] = max(found[channel], value)
    return found


@contextmanager
def _watched(network: nn.Module, rescaling: Rescaling, largest: dict[str, Tensor]) -> Iterator[None]:
    """Keep the largest absolute value of every channel that a layer reads, by the name of its weight."""

    def see(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        axis = inputs[0].ndim - 1 if isinstance(layer, nn.Linear) else 1
        values = inputs[0].abs().amax([dim for dim in range(inputs[0].ndim) if dim != axis])
        largest[name] = torch.maximum(largest[name], values) if name in largest else values

    free = {name for name, layer in rescaling.layers.items() if rescaling.free.intersection(layer.read.tolist())}
    modules = {name: network.get_submodule(name.removesuffix(".weight")) for name in sorted(free)}
    hooks = [module.register_forward_pre_hook(partial(see, name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _balance(network: nn.Module, rescaling: Rescaling, alive: set[int]) -> _Factors:
    """Factors for channels of equal ranges: the root of each channel's share of the rows that read it, inverted.

    A channel whose weights reach only a tenth of those rows' largest has coarse weights and needlessly fine
    activations; afterwards both lack the root of ten. A channel that was 0 on all images gets weights that reach the
    largest and no further.
    """
    shares: _Factors = defaultdict(float)
    weights = dict(network.named_parameters())
    for name, layer in rescaling.layers.items():
        sizes = weights[name].detach().double().abs().reshape(*layer.inputs.shape, -1).amax(2).numpy()
        counted = np.isin(layer.inputs, list(rescaling.free - alive), invert=True)
        rows = np.where(counted, sizes, 0.0).max(1, keepdims=True)
        found = sizes / np.where(rows > 0.0, rows, np.inf)
        for channel in rescaling.free.intersection(np.unique(layer.inputs).tolist()):
            shares[channel] = max(shares[channel], float(found[layer.inputs == channel].max()))
    return {
        channel: share**-0.5 if channel in alive else 1.0 / share for channel, share in shares.items() if share > 0.0
    }


def _groups(rescaling: Rescaling) -> dict[int, int]:
    """A number for every free channel, the same for those that share a tensor."""
    parents = {channel: channel for channel in rescaling.free}

    def root(channel: int) -> int:
        while parents[channel] != channel:
            channel = parents[channel]
        return channel

    for layer in rescaling.layers.values():
        for labels in (layer.read, layer.outputs):
            found = sorted(rescaling.free.intersection(labels.tolist()))
            for channel in found[1:]:
                parents[root(channel)] = root(found[0])
    return {channel: root(channel) for channel in parents}


def _centred(factors: Mapping[int, float], groups: Mapping[int, int]) -> _Factors:
    """Factors whose geometric mean over channels that share a tensor is 1.

    A factor of a whole tensor changes nothing in int8, but the step that a later training takes.
    """
    logarithms = {channel: float(np.log(factor)) for channel, factor in factors.items()}
    together: dict[int, list[float]] = defaultdict(list)
    for channel, value in logarithms.items():
        together[groups[channel]].append(value)
    return {channel: float(np.exp(value - np.mean(together[groups[channel]]))) for channel, value in logarithms.items()}
