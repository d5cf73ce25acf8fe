"""A model's graph and its nested graphs, with the producer and consumers of each name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import inliner

from edgekd.errors import ExportError

Array = npt.NDArray[Any]


class Scope:
    """One graph: the model's own, or the body of an If, Loop or Scan, which also sees names of the outer graph.

    Attributes:
        consumers: for each name, the nodes of this graph that read it, and its index among their inputs.
    """

    def __init__(self, graph: onnx.GraphProto, outer: Scope | None = None) -> None:
        self.graph = graph
        self.outer = outer
        self.consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        self._initializers: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._producers: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output if name}
        for node in graph.node:
            for place, name in enumerate(node.input):
                self.consumers[name].append((node, place))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that computes `name`; None for inputs, initialisers and unknown names."""
        found = self._producers.get(name)
        return found if found is not None or self.outer is None else self.outer.producer(name)

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """The tensor of `name`, if it is an initialiser or a Constant, directly or through an Identity."""
        if name in self._initializers:
            return self._initializers[name]
        node = self._producers.get(name)
        if node is None:
            return self.outer.tensor(name) if self.outer is not None else None
        if node.op_type == "Identity":
            return self.tensor(node.input[0])
        if node.op_type == "Constant":
            return next((held.t for held in node.attribute if held.name == "value"), None)
        return None

    def constant(self, name: str) -> Array | None:
        """The values of `name`, if they are constants in the graph."""
        if (tensor := self.tensor(name)) is not None:
            return onnx.numpy_helper.to_array(tensor)
        node = self.producer(name)
        if node is None or node.op_type != "Constant":
            return None
        return np.asarray(onnx.helper.get_attribute_value(node.attribute[0]))


def scopes(graph: onnx.GraphProto, outer: Scope | None = None) -> Iterator[Scope]:
    """The graph and every nested graph, outer ones first."""
    scope = Scope(graph, outer)
    yield scope
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for body in bodies:
                yield from scopes(body, scope)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, strings decoded; `default` where the node does not have it."""
    for held in node.attribute:
        if held.name == name:
            value = onnx.helper.get_attribute_value(held)
            return value.decode() if isinstance(value, bytes) else value
    return default


def title(node: onnx.NodeProto, more: str = "") -> str:
    """`conv1 (Conv)`: a node's name, or that of its first output, and its operator."""
    name = node.name or next(iter(node.output), "without a name")
    return f"{name} ({node.op_type}{more})"


def of_onnx(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is one of ONNX's, not a vendor's or the model's own."""
    return node.domain in ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int | None:
    """The opset of ONNX's operators; None where the model declares none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def expanded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its local functions inlined; the same model where it has none.

    Raises:
        ExportError: they cannot be inlined.
    """
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        found = str(error).partition("\n")[0]
        raise ExportError("the model's local functions cannot be inlined", found=found) from None
