"""How much a network's answers change where one operation alone is computed in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.utils import parametrize

from edgekd.quantization.float_layers import operations, path_of
from edgekd.quantization.operations import Effect, effect_of
from edgekd.quantization.placement import activation_quantizers, grids
from edgekd.quantization.quantizers import ActivationQuantizer

# Images times operations: MobileNetV2 at 224 pixels, with 64 operations, takes half a minute on 2 cores.
_CALLS, _FEWEST, _MOST = 4096, 16, 128


@dataclass(frozen=True)
class Sensitivity:
    """What int8 costs at one operation.

    Attributes:
        name: the operation's path.
        error: the squared change of the logits over their variance, each about its image's mean.
        lost: how much of the accuracy is lost, as a fraction of the images; None without labels.
    """

    name: str
    error: float
    lost: float | None


def images_for(operations: int) -> int:
    """How many images a scan of so many operations should look at, so that its time is bounded."""
    return min(_MOST, max(_FEWEST, _CALLS // max(1, operations)))


def scan(
    reference: fx.GraphModule,
    quantized: fx.GraphModule,
    batches: Sequence[Tensor],
    correct: Callable[[Tensor], Tensor] | None = None,
    *,
    shown: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Compute each operation alone in int8, all others in float, and compare the answers with the float network's.

    In int8 an operation has rounded inputs and weights. The network runs once for each image and operation.

    Args:
        reference: the float network, in eval mode.
        quantized: the network that placement.place() made of a copy of it, calibrated.
        batches: images (B, C, H, W); images_for() are enough.
        correct: from the logits (N, K) of all images to which answers are right.
        shown: called with the number of batches done, and of all.

    Returns:
        Those of operations() that read a quantized value or have quantized weights, in the graph's order.
    """
    alone = _Alone(reference, quantized)
    whole, changed = [], {name: list[Tensor]() for name in alone.units}
    with torch.inference_mode():
        for number, images in enumerate(batches):
            if shown is not None:
                shown(number, len(batches))
            whole.append(alone.answers(images))
            for name in alone.units:
                changed[name].append(alone.answers(images, name))
    expected = torch.cat(whole).double()
    right = _accuracy(expected, correct)
    found = []
    for name, answers in changed.items():
        logits = torch.cat(answers).double()
        lost = right - _accuracy(logits, correct) if correct is not None else None
        found.append(Sensitivity(name, _error(logits, expected), lost))
    return tuple(found)


class _Alone(fx.Interpreter):
    """Runs the float network, with one operation in int8 or none.

    All of it, not only what depends on the operation: modules and functions that work in place change values that
    others read, which a second run from the middle would not see.

    Attributes:
        units: the operations that are computed in int8, by path.
    """

    def __init__(self, reference: fx.GraphModule, quantized: fx.GraphModule) -> None:
        super().__init__(reference)
        self._quantized = quantized
        self._grids = _grids_read(quantized)
        weights = {path for path, module in quantized.named_modules() if parametrize.is_parametrized(module)}
        read = {path_of(node) for node in reference.graph.nodes if node.name in self._grids}
        self.units = tuple(path for path in operations(reference) if path in weights or path in read)
        self._unit: str | None = None

    def answers(self, images: Tensor, unit: str | None = None) -> Tensor:
        """The logits of images (B, C, H, W) with this operation in int8."""
        self._unit = unit
        result: Tensor = self.run(images)
        return result

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder" or path_of(n) != self._unit:
            return super().run_node(n)
        grids = self._grids.get(n.name, {})

        def value(each: fx.Node) -> Any:
            return grids[each.name](self.env[each]) if each.name in grids else self.env[each]

        args: Any = fx.node.map_arg(n.args, value)
        keywords: Any = fx.node.map_arg(n.kwargs, value)
        if n.op == "call_module":
            return self._quantized.get_submodule(str(n.target))(*args, **keywords)
        return getattr(self, n.op)(n.target, args, keywords)


def _grids_read(network: fx.GraphModule) -> dict[str, dict[str, ActivationQuantizer]]:
    """The quantizers of what each operation reads: by its node's name, then by the name of the node that it reads."""
    quantizers, moved = activation_quantizers(network), grids(network)
    found: dict[str, dict[str, ActivationQuantizer]] = {}
    for node in network.graph.nodes:
        if effect_of(node, network) in (Effect.PRESERVED, Effect.NUMBER) or str(node.target) in quantizers:
            continue
        for source in node.all_input_nodes:
            if str(source.target) in quantizers:
                read = found.setdefault(node.name, {})
                read[source.all_input_nodes[0].name] = quantizers[str(source.target)]
            elif source.name in moved:
                found.setdefault(node.name, {})[source.name] = quantizers[moved[source.name]]
    return found


def _accuracy(logits: Tensor, correct: Callable[[Tensor], Tensor] | None) -> float:
    return float(correct(logits).double().mean()) if correct is not None else 0.0


def _error(logits: Tensor, whole: Tensor) -> float:
    variance = (whole - whole.mean(1, keepdim=True)).pow(2).sum()
    change = logits - whole
    centred = (change - change.mean(1, keepdim=True)).pow(2).sum()
    return float(centred / variance.clamp(min=torch.finfo(torch.float64).tiny))
