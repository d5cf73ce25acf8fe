"""Calibration: chooses every activation's scale from what the float network computes on images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.calibrators import METHODS
from edgekd.quantization.histogram import Histogram
from edgekd.quantization.operations import WEIGHTED, Effect, effect_of
from edgekd.quantization.quantizers import HIGHEST, LOWEST, scale_of

AUTO = "auto"


def histograms(network: fx.GraphModule, names: Sequence[str], batches: Iterable[Tensor]) -> dict[str, Histogram]:
    """The histogram of every named value of a float network's graph; the order of the batches has no influence.

    Args:
        network: of placement.folded(), in eval mode, on the CPU.
        names: of the values: Quantized.placed.
        batches: images (N, C, H, W).

    Raises:
        ModelError: a value is not finite.
    """
    found = {name: Histogram(name) for name in names}
    with torch.inference_mode():
        for images in batches:
            _Observed(network, found).run(images)
    return found


class _Observed(fx.Interpreter):
    def __init__(self, network: fx.GraphModule, found: Mapping[str, Histogram]) -> None:
        super().__init__(network)
        self._found = found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._found:
            self._found[n.name].add(value)
        return value


@dataclass(frozen=True)
class Range:
    """Where a value is clipped, and by which method."""

    method: str
    amax: float


def ranges(network: fx.GraphModule, found: Mapping[str, Histogram], method: str, examples: Tensor) -> dict[str, Range]:
    """The range of every value.

    With "auto" each value gets the method whose grid changes least what is computed from it: the outputs of the layers
    that read it, and the value itself for other operations, as squared error relative to the squared values.

    Args:
        network: the float network whose values these are.
        found: of histograms().
        method: one of METHODS, or AUTO.
        examples: images (N, C, H, W) on which "auto" compares.
    """
    if method != AUTO:
        return {name: Range(method, METHODS[method](histogram)) for name, histogram in found.items()}
    candidates = {
        name: [Range(each, find(histogram)) for each, find in METHODS.items()] for name, histogram in found.items()
    }
    comparison = _Comparison(network, candidates)
    with torch.inference_mode():
        comparison.run(examples)
    return comparison.chosen


class _Comparison(fx.Interpreter):
    """Runs the float network, and for each value the layers that read it on every candidate's grid."""

    def __init__(self, network: fx.GraphModule, candidates: Mapping[str, Sequence[Range]]) -> None:
        super().__init__(network)
        self._candidates = candidates
        self._network = network
        self.chosen: dict[str, Range] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._candidates:
            expected = self._read(n, value)
            tried = self._candidates[n.name]
            costs = {
                amax: _error(self._read(n, _on_grid(value, amax)), expected) for amax in {each.amax for each in tried}
            }
            # Of equal ones the first.
            self.chosen[n.name] = min(tried, key=lambda each: costs[each.amax])
        return value

    def _read(self, node: fx.Node, value: Tensor) -> list[Tensor]:
        """What is computed of a value directly: layers' outputs, or the value itself once for each other user."""
        results = []
        for user in node.users:
            # What only moves values is followed: a flatten before a linear layer.
            moved = effect_of(user, self._network) is Effect.PRESERVED and user.all_input_nodes == [node]
            layer = self._network.get_submodule(str(user.target)) if user.op == "call_module" else None
            if moved:
                results.extend(self._read(user, self._run_on(user, node, value)))
            elif isinstance(layer, WEIGHTED):
                results.append(self._run_on(user, node, value))
            else:
                results.append(value)
        return results

    def _run_on(self, user: fx.Node, node: fx.Node, value: Any) -> Any:
        def replaced(arguments: Any) -> Any:
            return fx.node.map_arg(arguments, lambda each: value if each is node else each)

        return getattr(self, user.op)(user.target, replaced(user.args), replaced(user.kwargs))


def _on_grid(values: Tensor, amax: float) -> Tensor:
    scale = float(scale_of(torch.tensor(amax)))
    return torch.fake_quantize_per_tensor_affine(values, scale, 0, LOWEST, HIGHEST)


def _error(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The sum of the relative squared errors of several tensors."""
    return sum(
        float((one - other).square().mean() / other.square().mean().clamp_min(1e-30))
        for one, other in zip(found, expected, strict=True)
    )
