"""Bias correction: moves every layer's bias so that rounding to int8 does not shift its outputs.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, by means over
images. Two things differ. Every layer is corrected on what the float network computes, so that one pass is enough and
the order of the images has no influence. And where a ReLU follows, the mean is over the outputs that it lets pass: most
values of many channels are far below 0, where an error has no effect but would outweigh the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.operations import WEIGHTED, is_relu
from edgekd.quantization.placement import input_quantizers
from edgekd.quantization.quantizers import FINEST_INPUT, HIGHEST, LOWEST, ActivationQuantizer


def correct_biases(
    reference: fx.GraphModule, quantized: fx.GraphModule, positive: Collection[str], batches: Iterable[Tensor]
) -> int:
    """Correct the biases of a calibrated network in place; how many layers were corrected.

    Both int8 graphs have these biases: the errors on the grids of `int8` and of `int8-asym` are averaged. A layer
    without a bias, or one that runs several times, is left as it is.

    Args:
        reference: the float network, on the CPU.
        quantized: the network of place() made from it, calibrated, in eval mode, on the CPU.
        positive: names of the values that are never below 0, which `int8-asym` has in finer steps.
        batches: images (N, C, H, W).
    """
    errors = _Errors(reference, quantized, positive)
    with torch.inference_mode():
        for images in batches:
            errors.run(images)
    with torch.no_grad():
        for path, total in errors.totals.items():
            layer: Any = quantized.get_submodule(path)
            layer.bias.add_((total / errors.counts[path].clamp_min(1)).to(layer.bias.dtype))
    return len(errors.totals)


class _Errors(fx.Interpreter):
    """Runs the float network, and every layer again in int8 on the same inputs.

    Attributes:
        totals: (channels,) float64 by the layer's path: what int8 lacks, summed over the outputs that count.
        counts: (channels,): how many these are.
    """

    def __init__(self, reference: fx.GraphModule, quantized: fx.GraphModule, positive: Collection[str]) -> None:
        super().__init__(reference)
        self._reference, self._quantized, self._positive = reference, quantized, positive
        calls = Counter(str(node.target) for node in reference.graph.nodes if node.op == "call_module")
        self._inputs = {path: found[0] for path, found in input_quantizers(quantized).items() if calls[path] == 1}
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        path = str(n.target)
        layer = self._quantized.get_submodule(path) if n.op == "call_module" else None
        quantizer = self._inputs.get(path)
        value = super().run_node(n)
        if quantizer is not None and isinstance(layer, WEIGHTED) and isinstance(layer.bias, Tensor):
            (source,) = n.all_input_nodes
            missing = value - layer(self._rounded(self.env[source], quantizer))
            counted = self._counted(n, value)
            others = [dim for dim in range(value.ndim) if dim != _axis(value, layer)]
            total, count = (missing * counted).sum(others, dtype=torch.float64), counted.sum(others)
            self.totals[path] = self.totals.get(path, 0) + total
            self.counts[path] = self.counts.get(path, 0) + count
        return value

    def _rounded(self, values: Tensor, quantizer: ActivationQuantizer) -> Tensor:
        """The mean of both grids: the layer is linear, so that its output is the mean of both graphs'."""
        scale = float(quantizer.scale)
        signed = torch.fake_quantize_per_tensor_affine(values, scale, 0, LOWEST, HIGHEST)
        if quantizer.name not in self._positive:
            return signed
        finer = torch.fake_quantize_per_tensor_affine(values, scale * FINEST_INPUT, 0, 0, HIGHEST - LOWEST)
        return (signed + finer) / 2

    def _counted(self, node: fx.Node, value: Tensor) -> Tensor:
        """Which outputs a ReLU after the layer lets pass; all where there is none."""
        user = next(iter(node.users))
        if len(node.users) > 1 or not is_relu(user, self._reference):
            return torch.ones_like(value)
        # On a copy: it may work in place.
        own = value.clone()
        args = fx.node.map_arg(user.args, lambda each: own)
        passed: Tensor = getattr(self, user.op)(user.target, args, dict(user.kwargs))
        return (passed == value).to(value.dtype)


def _axis(value: Tensor, layer: nn.Module) -> int:
    """Of the channels in a layer's output."""
    return value.ndim - 1 if isinstance(layer, nn.Linear) else 1
