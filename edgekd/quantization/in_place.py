"""Operations that write their result over what they read: `x += y`, relu_(x), ReLU(inplace=True)."""

from __future__ import annotations

from torch import fx

from edgekd.quantization.operations import operation_of

_NAMES = frozenset({"iadd", "isub", "imul", "itruediv"})
# Functions that take `inplace` as their second argument.
_SECOND = frozenset({"relu", "relu6", "hardswish", "hardsigmoid", "silu", "mish", "elu"})


def read_results(network: fx.GraphModule) -> None:
    """Let whatever reads a value after an operation wrote over it read that operation's result, in place.

    They are the same tensor as long as nothing stands between: a quantizer would part them.
    """
    place = {node: number for number, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        if not works_in_place(node, network):
            continue
        source = node.all_input_nodes[0]
        later = {user for user in source.users if place[user] > place[node]}
        source.replace_all_uses_with(node, delete_user_cb=lambda user, later=later: user in later)


def works_in_place(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a node changes the value that it reads first."""
    if node.op == "call_module":
        return getattr(network.get_submodule(str(node.target)), "inplace", None) is True
    if node.op not in ("call_function", "call_method") or not node.all_input_nodes:
        return False
    name = operation_of(node)
    positional = name in _SECOND and len(node.args) > 1 and node.args[1] is True
    return (
        name in _NAMES
        or (name.endswith("_") and not name.endswith("__"))
        or positional
        or bool(node.kwargs.get("inplace"))
    )
