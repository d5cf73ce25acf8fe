"""Places quantizers so that engines can run the network in int8.

There is an activation quantizer after the input and after every operation that computes new values, except
- before a ReLU that is their only user: engines fuse both, so the quantizer is placed after the ReLU;
- before the network's output, which stays in float;
- where all that read it are to stay in float.
Operations that only move or select values (max-pool, reshape, items of chunk, zero padding …) keep the grid of their
input: `grids` returns it, and an export repeats its Q/DQ pair after them. Both inputs of a residual addition have a
quantizer, as ONNX Runtime requires. TensorRT fuses the addition with a convolution before it, and never rounds what is
between them: that quantizer is calibrated and exported, but the network computes without it; see fused.py.
Biases stay in float.

An operation that is kept in float computes with unrounded weights and reads its inputs unrounded, also where others
read them in int8; only if an operation that moves values lies between, for both, does it read the rounded ones.
"""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError, summary
from edgekd.quantization import float_layers
from edgekd.quantization.float_layers import only_feeds_relu, path_of, readers
from edgekd.quantization.fold import fold_norms, has_activation
from edgekd.quantization.fused import fused_branches, grid_of, is_quantizer
from edgekd.quantization.in_place import read_results
from edgekd.quantization.learned import LearnedActivationQuantizer
from edgekd.quantization.operations import (
    WEIGHTED,
    Effect,
    effect_of,
    is_many,
    uses_weight_unchanged,
    weight_axis,
)
from edgekd.quantization.quantizers import ActivationQuantizer, WeightQuantizer

# The folder of quantizers in the network: part of the names in a checkpoint.
QUANTIZERS = "quantizers"


@dataclass(frozen=True)
class Quantized:
    """A network with quantizers.

    Attributes:
        model: its modules have the names they had before; the quantizers are `quantizers.<value>`.
        placed: names of the quantized values, in the graph's order.
        left_in_float: the paths of the operations that stay in float, with the reason.
        operations: how many there are in the network that can be kept in float.
    """

    model: fx.GraphModule
    placed: tuple[str, ...]
    left_in_float: dict[str, str]
    operations: int


def insert(model: nn.Module, keep: Collection[str] = (), *, learned: bool = False) -> Quantized:
    """A copy of `model` with folded batch norms and quantizers, in eval mode; names are deterministic.

    Code that depends on training mode is fixed as in eval mode; only dropout layers still follow the mode.

    Args:
        model: a float network.
        keep: paths of the operations that stay in float; see edgekd.quantization.float_layers.
        learned: whether the activations' scales are parameters, which are trained with the weights.

    Raises:
        ModelError: torch.fx cannot trace this network, it is quantized already, or lacks one of these operations.
    """
    return place(folded(model), keep, learned=learned)


def folded(model: nn.Module) -> fx.GraphModule:
    """A traced copy of `model` with folded batch norms, in eval mode, to which place() adds the quantizers.

    Raises:
        ModelError: torch.fx cannot trace this network, or it is quantized already.
    """
    network = _traced(model)
    fold_norms(network)
    network.recompile()
    return network.eval()


def place(network: fx.GraphModule, keep: Collection[str] = (), *, learned: bool = False) -> Quantized:
    """Put quantizers into a network of folded(), in place. Args and Raises as insert()."""
    float_layers.check_known(keep, network)
    kept = {node for node in network.graph.nodes if path_of(node) in keep}
    placed = tuple(node.name for node in _values_to_quantize(network, kept))
    left_in_float, operations = float_layers.reasons(network, keep), len(float_layers.operations(network))
    weights = _quantize_weights(network, keep)
    _quantize_activations(network, placed, kept, learned)
    _fit_biases(network, weights)
    for path in fused_branches(network):
        activation_quantizers(network)[path].fused = True
    network.graph.lint()
    network.recompile()
    return Quantized(network.eval(), placed, left_in_float, operations)


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Every activation quantizer by its path in the network."""
    return {path: module for path, module in network.named_modules() if isinstance(module, ActivationQuantizer)}


def refuse_quantized(model: nn.Module, name: str) -> None:
    """Raises ModelError where a network is already quantized; `name` is the network's, for the message."""
    if activation_quantizers(model):
        raise ModelError(
            f"{name} is already quantized",
            hint="use the float checkpoint that it was made from: the chain quantizes it",
        )


def observe(network: nn.Module) -> None:
    """Begin calibration: the network in eval mode, its quantizers observing values. `network.eval()` ends it."""
    network.eval()
    for quantizer in activation_quantizers(network).values():
        quantizer.train()


def freeze(network: nn.Module) -> None:
    """Fix every activation's scale.

    Raises:
        ModelError: a quantizer has seen no values; the message names it.
    """
    for quantizer in activation_quantizers(network).values():
        quantizer.freeze()


def grids(network: fx.GraphModule) -> dict[str, str]:
    """The quantizer of every value on an int8 grid: from node name to the quantizer's path.

    Quantizers' own outputs are left out. So are operations such as chunk, whose items are listed instead.
    """
    paths: dict[str, str] = {}
    for node in network.graph.nodes:
        path = None if is_quantizer(node, network) or is_many(node) else grid_of(node, network)
        if path is not None:
            paths[node.name] = path
    return paths


def input_quantizers(network: fx.GraphModule) -> dict[str, list[ActivationQuantizer]]:
    """The quantizers of what each module reads, by the module's path; several where it runs more than once."""
    quantizers, inputs = activation_quantizers(network), defaultdict[str, list[ActivationQuantizer]](list)
    for node in network.graph.nodes:
        if node.op == "call_module" and node.all_input_nodes:
            grid = grid_of(node.all_input_nodes[0], network)
            if grid is not None:
                inputs[str(node.target)].append(quantizers[grid])
    return dict(inputs)


class _Tracer(fx.Tracer):
    """Does not trace into weighted layers, their subclasses, or timm's batch norm with activation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, WEIGHTED) or has_activation(m) or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module) -> fx.GraphModule:
    refuse_quantized(model, type(model).__name__)
    own = copy.deepcopy(model).eval()
    _compute_parametrizations(own)
    try:
        graph = _Tracer().trace(own, concrete_args=_defaults(own))
        _drop_defaults(graph)
        network = fx.GraphModule(own, graph, type(model).__name__)
    # Tracing runs the network's own code on proxies for tensors, which may raise anything.
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be quantized: torch.fx cannot trace it",
            found=summary(error),
            hint="choose a network whose forward() does not branch on tensors' values",
        ) from error
    read_results(network)
    return network


@torch.no_grad()
def _compute_parametrizations(model: nn.Module) -> None:
    """Make what a network's own parametrizations (weight norm, spectral norm) compute its parameters, in place.

    Not by remove_parametrizations(), which changes a class that this copy shares with the original.
    """
    for module in [each for each in model.modules() if parametrize.is_parametrized(each)]:
        held: Any = module.parametrizations
        values = {name: getattr(module, name).clone() for name in held}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The defaults of forward()'s parameters other than the images."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _drop_defaults(graph: fx.Graph) -> None:
    """Keep the images as the only input, and remove fx's assertions about the others."""
    removed = set([node for node in graph.nodes if node.op == "placeholder"][1:])
    for node in graph.nodes:
        if node.all_input_nodes and removed.issuperset(node.all_input_nodes):
            removed.add(node)
    for node in reversed(list(graph.nodes)):
        if node in removed:
            graph.erase_node(node)


def _values_to_quantize(network: fx.GraphModule, kept: Collection[fx.Node]) -> list[fx.Node]:
    outputs = {id(node) for node in _output_values(network)}
    chosen = []
    for node in network.graph.nodes:
        effect = effect_of(node, network)
        if effect is Effect.INPUT or (
            effect is Effect.COMPUTED and id(node) not in outputs and not only_feeds_relu(node, network)
        ):
            if not _reads_float(node, network, kept):
                chosen.append(node)
    return chosen


def _reads_float(node: fx.Node, network: fx.GraphModule, kept: Collection[fx.Node]) -> bool:
    """Whether all that compute with a value are kept in float."""
    found = list(readers(node, network))
    return bool(found) and all(reader in kept for reader in found)


def _output_values(network: fx.GraphModule) -> list[fx.Node]:
    """The nodes that compute the network's output, and those after them that only move its values."""
    output = next(node for node in network.graph.nodes if node.op == "output")
    pending, found = list(output.all_input_nodes), []
    while pending:
        node = pending.pop()
        found.append(node)
        if effect_of(node, network) is Effect.PRESERVED:
            pending.extend(node.all_input_nodes[:1])
    return found


def _quantize_weights(network: fx.GraphModule, keep: Collection[str]) -> dict[str, WeightQuantizer]:
    """The quantizers by the path of their layer."""
    placed = {}
    for path in dict.fromkeys(str(node.target) for node in network.graph.nodes if node.op == "call_module"):
        layer = network.get_submodule(path)
        if path not in keep and isinstance(layer, WEIGHTED) and uses_weight_unchanged(layer):
            placed[path] = WeightQuantizer(weight_axis(layer))
            parametrize.register_parametrization(layer, "weight", placed[path])
    return placed


def _quantize_activations(
    network: fx.GraphModule, names: tuple[str, ...], kept: Collection[fx.Node], learned: bool
) -> None:
    folder, kind = nn.Module(), LearnedActivationQuantizer if learned else ActivationQuantizer
    for name in names:
        folder.add_module(name, kind(name))
    network.add_submodule(QUANTIZERS, folder)
    for node in [node for node in network.graph.nodes if node.name in names]:
        with network.graph.inserting_after(node):
            quantized = network.graph.call_module(f"{QUANTIZERS}.{node.name}", (node,))
        float_users = {user for user in node.users if user in kept or _moves_for_float(user, network, kept)}
        node.replace_all_uses_with(
            quantized, delete_user_cb=lambda user, others=float_users | {quantized}: user not in others
        )


def _moves_for_float(node: fx.Node, network: fx.GraphModule, kept: Collection[fx.Node]) -> bool:
    """Whether an operation only moves values, for others that are all kept in float."""
    return effect_of(node, network) is Effect.PRESERVED and _reads_float(node, network, kept)


def _fit_biases(network: fx.GraphModule, weights: dict[str, WeightQuantizer]) -> None:
    """Tell every weight's quantizer of its layer's bias and of the quantizers of the layer's inputs."""
    inputs = input_quantizers(network)
    for path, quantizer in weights.items():
        quantizer.fit_bias(network.get_submodule(path), inputs.get(path, []))
