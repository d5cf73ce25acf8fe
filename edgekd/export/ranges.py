"""Finds the operators of a float32 graph that float16 cannot compute, by the values they meet on images.

A GPU computes a float16 graph in float16, which ends at 65,504; most CPUs compute it in float32, so that no comparison
on a CPU notices. What counts is therefore measured on the float32 graph: the largest absolute value of every tensor,
and of every sum that an operator forms inside. GPUs add in float16 or in float32, in an order and with a choice of
kernels that nobody promises (a mean is a sum first), so a sum is taken as that of its terms' absolute values, which no
order exceeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekd.export._scopes import Scope, attribute, title
from edgekd.runtime.backends import open_reference
from edgekd.runtime.preprocess import Floats
from edgekd.store.artifacts import Json
from edgekd.wording import counted

HIGHEST = float(np.finfo(np.float16).max)
# Of activations and sums: other images may reach further than the ones that were looked at.
SAFE_SHARE = 0.25
# Below it, float16 has fewer than 11 bits; below 6e-8 it has none.
_SMALLEST = float(np.finfo(np.float16).smallest_normal)
_IMAGES = 64
# Larger ones do not fit a CPU's cache: at 224x224, 32 take four times as long per image.
_BATCH = 8
# In a line for people.
_NAMED = 4
_OBSERVED = "observed"
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_PRODUCTS = _WEIGHTED | {"Einsum"}
_MEANS = frozenset({"ReduceMean", "GlobalAveragePool"})


@dataclass(frozen=True)
class Beyond:
    """An operator to keep in float32.

    Attributes:
        node: its name in the graph.
        operator: for people, e.g. "conv1 (Conv)".
        what: the value that decides, e.g. "an output up to".
        value: its largest absolute value.
    """

    node: str
    operator: str
    what: str
    value: float


@dataclass(frozen=True)
class Kept:
    """The operators that stay in float32, of how many in the graph."""

    operators: tuple[Beyond, ...]
    of: int

    @property
    def facts(self) -> Json:
        """For the manifest."""
        return {"of": self.of, "operators": [asdict(each) for each in self.operators]}

    @classmethod
    def from_facts(cls, facts: Json) -> Kept:
        return cls(tuple(Beyond(**each) for each in facts["operators"]), facts["of"])

    @property
    def lines(self) -> list[str]:
        """For people; empty where none is."""
        if not self.operators:
            return []
        named = [f"{each.operator}, {each.what} {each.value:.2g}" for each in self.operators[:_NAMED]]
        more = [f"and {len(self.operators) - _NAMED} more"] if len(self.operators) > _NAMED else []
        limit = (
            f"{counted(len(self.operators), 'operator')} of {self.of} in float32, since float16 ends at {HIGHEST:,.0f}"
        )
        return [f"{limit}: {'; '.join([*named, *more])}"]


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the type of every tensor, in which every node has a name of its own."""
    own = onnx.shape_inference.infer_shapes(model)
    taken = {node.name for node in own.graph.node}
    seen: set[str] = set()
    for place, node in enumerate(own.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{place}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return own


def beyond_float16(model: onnx.ModelProto, inputs: Floats) -> list[Beyond]:
    """The operators of a graph that meet values beyond float16, in the graph's order; not those inside an If or Loop.

    An operator is beyond it where on these images, an input, an output or a sum reaches SAFE_SHARE of the largest
    number, where a constant is larger than that number, or where all weights of a layer are too small for its full
    precision. Small activations do not count: what matters of them is usually added to larger ones.

    Args:
        model: of named().
        inputs: (N, C, H, W), of which at most 64 are used, spread evenly.
    """
    watched = _watched(model)
    largest = _run(watched, inputs)
    constants = _constants(model)
    found = (_verdict(node, watched, largest, constants) for node in model.graph.node)
    return [each for each in found if each is not None]


@dataclass
class _Watched:
    """A copy of a graph that computes the largest absolute values of its tensors.

    Attributes:
        floats: the names of the float32 tensors that are not constant.
        sums: by the name of the node.
        places: of each value in the output; tensors' and nodes' names.
    """

    model: onnx.ModelProto
    floats: frozenset[str]
    sums: dict[str, str] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)


def _verdict(
    node: NodeProto, watched: _Watched, largest: npt.NDArray[np.float32], constants: dict[str, float]
) -> Beyond | None:
    for what, value, low, high in _values(node, watched, largest, constants):
        # Written so that a value that is not a number counts.
        if not value <= high:
            return Beyond(node.name, title(node), f"{what} up to", value)
        if 0.0 < value < low:
            return Beyond(node.name, title(node), f"{what} of at most", value)
    return None


def _values(
    node: NodeProto, watched: _Watched, largest: npt.NDArray[np.float32], constants: dict[str, float]
) -> Iterator[tuple[str, float, float, float]]:
    """What a node meets: its name, largest absolute value, and the bounds within which that should be."""
    for what, names in (("an output", node.output), ("an input", node.input)):
        for name in names:
            if name in watched.places:
                yield what, float(largest[watched.places[name]]), 0.0, HIGHEST * SAFE_SHARE
    for place, name in enumerate(node.input):
        # Bounds beyond the range are bounds at its end.
        if name in constants and not (node.op_type == "Clip" and place):
            is_weight = node.op_type in _WEIGHTED and place < 2
            yield "weights" if is_weight else "a constant", constants[name], _SMALLEST if is_weight else 0.0, HIGHEST
    if node.op_type == "Constant" and node.output[0] in constants:
        yield "a constant", constants[node.output[0]], 0.0, HIGHEST
    if node.name in watched.sums:
        yield "a sum", float(largest[watched.places[watched.sums[node.name]]]), 0.0, HIGHEST * SAFE_SHARE


def _constants(model: onnx.ModelProto) -> dict[str, float]:
    """The largest finite absolute value of every float32 constant; float16 has infinities of its own."""
    scope = Scope(model.graph)
    names = [tensor.name for tensor in model.graph.initializer]
    names += [name for node in model.graph.node if node.op_type == "Constant" for name in node.output]
    found = {name: tensor for name in names if (tensor := scope.tensor(name)) is not None}
    return {
        name: float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))
        for name, tensor in found.items()
        if tensor.data_type == TensorProto.FLOAT and (values := numpy_helper.to_array(tensor)).size
    }


def _run(watched: _Watched, inputs: Floats) -> npt.NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "watched.onnx"
        onnx.save(watched.model, file)
        with open_reference(file, as_written=False) as session:
            chosen = inputs[:: -(-len(inputs) // _IMAGES)]
            batches = [chosen[first : first + _BATCH] for first in range(0, len(chosen), _BATCH)]
            # Unlike maximum(), fmax() would hide what is not a number.
            found: npt.NDArray[np.float32] = np.maximum.reduce([session.bind(batch)() for batch in batches])
            return found


def _watched(model: onnx.ModelProto) -> _Watched:
    own = onnx.ModelProto()
    own.CopyFrom(model)
    graph = own.graph
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    typed = [*graph.input, *graph.value_info, *graph.output]
    floats = {each.name for each in typed if each.type.tensor_type.elem_type == TensorProto.FLOAT} - fixed
    made = {name for node in graph.node for name in node.output} | {each.name for each in graph.input}
    watched = _Watched(own, frozenset(floats & made))
    nodes = list(graph.node)
    probes = _Probes(graph)
    for name in sorted(watched.floats):
        watched.places[name] = probes.watch(name)
    for node in nodes:
        summed = _sum(probes, node) if watched.floats.intersection(node.input) else None
        if summed is not None:
            watched.sums[node.name] = summed
            watched.places[summed] = probes.watch(summed)
    probes.finish()
    return watched


class _Probes:
    """Adds nodes to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0
        self._values: list[str] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its output."""
        name = self._name()
        self._graph.node.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def like(self, node: NodeProto, *inputs: str, **attributes: object) -> str:
        """The same operator with other inputs, and some other attributes."""
        name, copied = self._name(), NodeProto()
        copied.CopyFrom(node)
        copied.name = name
        copied.input[:], copied.output[:] = inputs, [name]
        for held in [held for held in copied.attribute if held.name in attributes]:
            copied.attribute.remove(held)
        copied.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._graph.node.append(copied)
        return name

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def watch(self, name: str) -> int:
        """The place in the output of a tensor's largest absolute value."""
        top = self.add("ReduceMax", self.add("Abs", name), keepdims=0)
        self._values.append(self.add("Reshape", top, self.constant(np.array([1], np.int64))))
        return len(self._values) - 1

    def finish(self) -> None:
        """Make what is watched the graph's only output."""
        self._graph.node.append(helper.make_node("Concat", self._values, [_OBSERVED], axis=0))
        del self._graph.output[:]
        self._graph.output.append(helper.make_tensor_value_info(_OBSERVED, TensorProto.FLOAT, [len(self._values)]))

    def _name(self) -> str:
        self._count += 1
        return f"{_OBSERVED}/{self._count}"


def _sum(probes: _Probes, node: NodeProto) -> str | None:
    """The largest that any sum inside an operator can become; None where it has no sum of its own."""
    if node.op_type in _PRODUCTS:
        return _products(probes, node)
    if node.op_type in _MEANS:
        return _undivided(probes, node)
    return _SUMS[node.op_type](probes, node) if node.op_type in _SUMS else None


def _products(probes: _Probes, node: NodeProto) -> str:
    factors = {name: abs(attribute(node, name)) for name in ("alpha", "beta") if attribute(node, name) is not None}
    return probes.like(node, *(probes.add("Abs", name) if name else "" for name in node.input), **factors)


def _undivided(probes: _Probes, node: NodeProto) -> str:
    """A mean of the absolute values, times how many they are."""
    mean = probes.like(node, probes.add("Abs", node.input[0]), *node.input[1:])
    sizes = [probes.add("Cast", probes.add("Size", name), to=TensorProto.FLOAT) for name in (node.input[0], mean)]
    return probes.add("Mul", mean, probes.add("Div", *sizes))


def _pooled(probes: _Probes, node: NodeProto) -> str:
    count = probes.constant(np.array(np.prod(attribute(node, "kernel_shape")), np.float32))
    return probes.add("Mul", probes.like(node, probes.add("Abs", node.input[0])), count)


def _added(probes: _Probes, node: NodeProto) -> str:
    return probes.like(node, probes.add("Abs", node.input[0]), *node.input[1:])


def _squares(probes: _Probes, node: NodeProto) -> str:
    attributes = {held.name: helper.get_attribute_value(held) for held in node.attribute}
    return probes.add("ReduceSumSquare", *node.input, **attributes)


def _normalized(probes: _Probes, node: NodeProto) -> str:
    """The sum of the squares of what a layer, instance or group norm takes the variance of."""
    if node.op_type == "LayerNormalization":
        rows = probes.add("Flatten", node.input[0], axis=attribute(node, "axis", -1))
    else:
        groups = attribute(node, "num_groups", 0)  # 0: as many as the input has channels
        rows = probes.add("Reshape", node.input[0], probes.constant(np.array([0, groups, -1], np.int64)))
    columns = probes.add("Unsqueeze", rows, probes.constant(np.array([-1], np.int64)))
    return probes.add("MatMul", probes.add("Unsqueeze", rows, probes.constant(np.array([-2], np.int64))), columns)


_SUMS: dict[str, Callable[[_Probes, NodeProto], str]] = {
    "AveragePool": _pooled,
    "ReduceSum": _added,
    "ReduceL1": _added,
    "ReduceL2": _squares,
    "ReduceSumSquare": _squares,
    "LayerNormalization": _normalized,
    "InstanceNormalization": _normalized,
    "GroupNormalization": _normalized,
}
