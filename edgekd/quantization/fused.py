"""Which activation quantizers engines leave out, because the operations before and behind them are one."""

from __future__ import annotations

from torch import fx

from edgekd.quantization.operations import Effect, effect_of, is_addition, is_convolution, is_identity, users_of
from edgekd.quantization.quantizers import ActivationQuantizer


def fused_branches(network: fx.GraphModule) -> list[str]:
    """Paths of the quantizers between a convolution and the addition that it is fused with.

    One for each addition of two quantized values, where that convolution's output is used for nothing else. They are
    those that edgekd.export.qdq.without_fused_branches leaves out of the graph for TensorRT.
    """
    found = []
    for node in network.graph.nodes:
        if node.op == "output" or not is_addition(node):
            continue
        arguments = (*node.args, node.kwargs.get("other"))
        inputs = [each for each in arguments if isinstance(each, fx.Node)]
        # What is multiplied by alpha first is not added where it is computed.
        if len(inputs) != 2 or node.kwargs.get("alpha", 1) != 1:
            continue
        if all(grid_of(each, network) is not None for each in inputs):
            fused = [path for each in inputs if (path := _only_after_convolution(each, network)) is not None]
            found.extend(fused[:1])
    return found


def is_quantizer(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node is an activation quantizer."""
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), ActivationQuantizer)


def grid_of(node: fx.Node, network: fx.GraphModule) -> str | None:
    """The path of the quantizer on whose grid a node's value is; None where it is on none."""
    while not is_quantizer(node, network):
        if effect_of(node, network) is not Effect.PRESERVED:
            return None
        node = node.all_input_nodes[0]
    return str(node.target)


def _only_after_convolution(node: fx.Node, network: fx.GraphModule) -> str | None:
    """The path of the quantizer that a value comes from, if only a convolution is before and nothing else behind it."""
    quantizer = _behind_identities(node, network)
    if quantizer is None or not is_quantizer(quantizer, network):
        return None
    maker = _behind_identities(quantizer.all_input_nodes[0], network)
    return str(quantizer.target) if maker is not None and is_convolution(maker, network) else None


def _behind_identities(node: fx.Node, network: fx.GraphModule) -> fx.Node | None:
    """The node whose value this is; None where it, or one between, has other users."""
    while len(users_of(node, network)) == 1:
        if not is_identity(node, network):
            return node
        node = node.all_input_nodes[0]
    return None
