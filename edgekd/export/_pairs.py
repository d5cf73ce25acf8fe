"""A graph with Q/DQ pairs whose nodes and constants can be looked up by name, and edited."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, numpy_helper

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear and the DequantizeLinear after it."""

    quantize: NodeProto
    dequantize: NodeProto

    @property
    def source(self) -> str:
        return str(self.quantize.input[0])

    @property
    def steps(self) -> str:
        return str(self.quantize.output[0])

    @property
    def result(self) -> str:
        return str(self.dequantize.output[0])

    @property
    def has_one_grid(self) -> bool:
        """Whether it only rounds; else it also scales what it reads, as where a convolution computes a hard-sigmoid."""
        return bool(self.quantize.input[1:] == self.dequantize.input[1:])


class PairedGraph:
    """A copy of a model, for passes that edit it in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self._constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self._look_up()

    def nodes(self, *operators: str) -> list[NodeProto]:
        """Those of some operators, in the graph's order."""
        return [node for node in self.graph.node if node.op_type in operators]

    def maker(self, name: str) -> NodeProto | None:
        """The node that computes a value; None for inputs and constants."""
        return self._makers.get(name)

    def users(self, name: str) -> list[NodeProto]:
        return self._users[name]

    def is_private(self, name: str) -> bool:
        """Whether a value has one user, and is no output of the graph."""
        return len(self._users[name]) == 1 and name not in self._outputs

    def is_output(self, name: str) -> bool:
        return name in self._outputs

    def constant(self, name: str) -> Array | None:
        """The values of a constant; None where `name` is none."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def pairs(self) -> Iterator[Pair]:
        for node in self.nodes("DequantizeLinear"):
            pair = self.pair_of(node.output[0])
            if pair is not None:
                yield pair

    def pair_of(self, result: str) -> Pair | None:
        """The pair that makes a value; None where none does, as for a weight stored in int8."""
        node = self.maker(result)
        before = self.maker(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else None
        is_pair = node is not None and before is not None and before.op_type == "QuantizeLinear"
        return Pair(before, node) if is_pair else None  # type: ignore[arg-type]

    def pair_after(self, source: str) -> Pair | None:
        """The pair that is the only user of a value."""
        if not self.is_private(source):
            return None
        quantize = self._users[source][0]
        if quantize.op_type != "QuantizeLinear" or not self.is_private(quantize.output[0]):
            return None
        dequantize = self._users[quantize.output[0]][0]
        return Pair(quantize, dequantize) if dequantize.op_type == "DequantizeLinear" else None

    def add_constant(self, name: str, value: Array | np.generic) -> str:
        """A new constant; returns its name, which is `name` if that is free."""
        name = self._free(name)
        tensor = numpy_helper.from_array(np.asarray(value), name)
        self.graph.initializer.append(tensor)
        self._constants[name] = self.graph.initializer[-1]
        return name

    def insert(
        self,
        before: NodeProto,
        operator: str,
        inputs: list[str],
        name: str,
        *,
        title: str | None = None,
        **attributes: Any,
    ) -> str:
        """A new node before another one; returns the name of its output, which is `name` if that is free."""
        name = self._free(name)
        node = onnx.helper.make_node(operator, inputs, [name], name=title or f"{name}_node", **attributes)
        self.graph.node.insert(list(self.graph.node).index(before), node)
        self._look_up()
        return name

    def insert_pair(self, before: NodeProto, source: str, scale: float, zero: int, name: str) -> str:
        """A new pair on a uint8 grid before a node; returns what it makes."""
        grid = self.grid(name, scale, zero)
        steps = self.insert(before, "QuantizeLinear", [source, *grid], f"{name}_steps")
        return self.insert(before, "DequantizeLinear", [steps, *grid], name)

    def grid(self, name: str, scale: float, zero: int) -> list[str]:
        """The names of the constants of a new uint8 grid."""
        return [
            self.add_constant(f"{name}_scale", np.float32(scale)),
            self.add_constant(f"{name}_zero", np.uint8(zero)),
        ]

    def put_on(self, pair: Pair, grid: list[str]) -> None:
        """Give both nodes of a pair another grid."""
        for node in (pair.quantize, pair.dequantize):
            node.input[1:] = grid
        self._look_up()

    def set_input(self, node: NodeProto, place: int, name: str) -> None:
        node.input[place] = name
        self._look_up()

    def scale_and_zero(self, node: NodeProto) -> tuple[float, int]:
        """Of a QuantizeLinear or DequantizeLinear with one scale."""
        scale, zero = (self.constant(name) for name in node.input[1:3])
        assert scale is not None and zero is not None
        return float(scale), int(zero)

    def become(self, node: NodeProto, operator: str, inputs: list[str], **attributes: Any) -> None:
        """Let another operator compute the node's output."""
        node.op_type = operator
        node.input[:] = inputs
        del node.attribute[:]
        node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
        self._look_up()

    def remove(self, *nodes: NodeProto) -> None:
        for node in nodes:
            self.graph.node.remove(node)
        self._look_up()

    def drop_unused(self) -> None:
        """Remove the constants that no node reads."""
        self._look_up()
        for name in [name for name in self._constants if not self._users[name] and name not in self._outputs]:
            self.graph.initializer.remove(self._constants.pop(name))

    def finish(self) -> onnx.ModelProto:
        """The model without unused constants, its value types inferred anew."""
        self.drop_unused()
        del self.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True)

    def _free(self, name: str) -> str:
        name = name.replace("/", "_")
        while name in self._constants or name in self._makers or name in self._inputs:
            name += "_"
        return name

    def _look_up(self) -> None:
        self._makers = {name: node for node in self.graph.node for name in node.output}
        self._users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self._users[name].append(node)
        self._outputs = {value.name for value in self.graph.output}
        self._inputs = {value.name for value in self.graph.input}
