"""Which operations of a network stay in float, by the paths of its modules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import fx

from edgekd.errors import ModelError, nearest
from edgekd.quantization.operations import (
    WEIGHTED,
    Effect,
    effect_of,
    is_identity,
    is_relu,
    keeps_float_weights,
    users_of,
)

ON_REQUEST = "asked for by quantize.keep_float"
_NO_FORM = "no int8 form of this operation is known"
_FLOAT_WEIGHTS = "its weights are computed or passed in the network's own code, so that they cannot be rounded"
_NO_LAYER = "engines have it in int8 only as a part of a layer, and there is none to take it in"
_MOST_NAMED = 8


def path_of(node: fx.Node) -> str:
    """A module's path; of a function or method the path of the module that calls it, then the node's name."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return f"{stack[-1][0]}.{node.name}" if stack and stack[-1][0] else node.name


def operations(network: fx.GraphModule) -> dict[str, fx.Node]:
    """Every operation that can be kept in float, by its path, in the graph's order.

    Args:
        network: of placement.folded().

    Returns:
        The first node of each path. What only moves values is not among them, nor a ReLU that is fused with the layer
        before it.
    """
    found: dict[str, fx.Node] = {}
    for node in network.graph.nodes:
        if effect_of(node, network) in (Effect.COMPUTED, Effect.UNKNOWN) and not _is_fused(node, network):
            found.setdefault(path_of(node), node)
    return found


def matching(patterns: Sequence[str], network: fx.GraphModule) -> tuple[str, ...]:
    """The paths of the operations that patterns name, in the graph's order.

    Args:
        patterns: paths of modules or operations, in which `*`, `?` and `[…]` stand for characters. The path of a block
            names all that lies in it.
        network: of placement.folded().

    Raises:
        ModelError: a pattern names no operation; the message has the nearest names.
    """
    paths = list(operations(network))
    for pattern in patterns:
        if not any(_names(pattern, path) for path in paths):
            raise _unknown(pattern, paths)
    return tuple(path for path in paths if any(_names(pattern, path) for pattern in patterns))


def check_known(paths: Collection[str], network: fx.GraphModule) -> None:
    """Raises ModelError where the network has no operation of one of these paths."""
    known = operations(network)
    for path in paths:
        if path not in known:
            raise _unknown(path, known)


def reasons(network: fx.GraphModule, kept: Collection[str]) -> dict[str, str]:
    """Every operation that has no quantized weights or inputs, by its path, and why.

    Args:
        network: of placement.folded().
        kept: paths of the operations that are kept in float.
    """
    found = {}
    for path, node in operations(network).items():
        if path in kept:
            found[path] = ON_REQUEST
        elif effect_of(node, network) is Effect.UNKNOWN:
            found[path] = _NO_FORM
        elif keeps_float_weights(node, network):
            found[path] = _FLOAT_WEIGHTS if _is_layer(node, network) else _NO_LAYER
    return found


def readers(node: fx.Node, network: fx.GraphModule) -> Iterator[fx.Node]:
    """The operations that compute with a value, directly or after it was only moved."""
    for user in node.users:
        effect = effect_of(user, network)
        if effect is Effect.PRESERVED and user.all_input_nodes[0] is node:
            yield from readers(user, network)
        elif effect is not Effect.NUMBER:
            yield user


def only_feeds_relu(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a ReLU is the only user of a value: engines fuse it with the operation that computes the value."""
    users = users_of(node, network)
    if len(users) != 1:
        return False
    return is_relu(users[0], network) or (is_identity(users[0], network) and only_feeds_relu(users[0], network))


def _is_fused(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether this is a ReLU, and the only user of what it reads."""
    if not is_relu(node, network):
        return False
    source = node.all_input_nodes[0]
    while is_identity(source, network) and len(source.users) == 1:
        source = source.all_input_nodes[0]
    return effect_of(source, network) is Effect.COMPUTED and only_feeds_relu(source, network)


def _is_layer(node: fx.Node, network: fx.GraphModule) -> bool:
    return node.op != "call_module" or isinstance(network.get_submodule(str(node.target)), WEIGHTED)


def _names(pattern: str, path: str) -> bool:
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:length]), pattern) for length in range(1, len(parts) + 1))


def _unknown(pattern: str, known: Collection[str] | Mapping[str, object]) -> ModelError:
    parents = {".".join(path.split(".")[:length]) for path in known for length in range(1, path.count(".") + 1)}
    near = nearest(pattern, [*known, *sorted(parents)])
    names = list(known)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ModelError(
        "an operation that is to stay in float is not in the network",
        found=pattern,
        allowed=f"{', '.join(names[:_MOST_NAMED])}{more}, a block that holds some of them, or a pattern with *",
        hint=f"did you mean {near}?" if near is not None else "a ReLU or batch norm belongs to the layer before it",
    )
