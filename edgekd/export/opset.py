"""Converts a graph to an older opset: PyTorch exports 18 and later, TensorRT 8.6 reads up to 17.

Only exact rewrites are made; anything else is an error that names the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import defs

from edgekd.errors import ExportError, UsageError
from edgekd.export._scopes import Scope, attribute, expanded, of_onnx, opset_of, scopes, title

# The newest opset that this converter covers; an older onnx package does not know it.
OLDEST, NEWEST = 17, min(25, defs.onnx_opset_version())
# The IR version that was released with each opset.
_IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}

Shapes = Mapping[str, "list[int | None]"]
# Rewrites a node in place. Returns the reason why it cannot, or None.
Rewrite = Callable[[Scope, onnx.NodeProto, Shapes], "str | None"]


def lower(graph: onnx.ModelProto, opset: int = 17) -> onnx.ModelProto:
    """The same computation in an older opset. The graph that is passed is not changed.

    Args:
        graph: in an opset of at least `opset`.
        opset: the opset to write it in.

    Returns:
        A new graph with the IR version of that opset, its model-local functions inlined.

    Raises:
        UsageError: the opset is not supported, or newer than the graph's.
        ExportError: an operator cannot be written exactly in that opset, or the graph is not valid.
    """
    source = opset_of(graph)
    if source is None:
        raise ExportError("the model does not declare its opset", hint="export it again")
    if not OLDEST <= opset <= source <= NEWEST:
        raise UsageError(
            f"a graph in opset {source} cannot be converted to opset {opset}",
            allowed=f"graphs up to opset {NEWEST}, to an opset not newer than theirs and at least {OLDEST}",
        )
    lowered = onnx.ModelProto()
    lowered.CopyFrom(expanded(graph))
    shapes = _shapes(lowered)
    for scope in scopes(lowered.graph):
        for node in scope.graph.node:
            _lower_node(scope, node, source, opset, shapes)
    _tidy(lowered.graph)
    del lowered.opset_import[:]
    lowered.opset_import.append(onnx.helper.make_opsetid("", opset))
    lowered.ir_version = _IR_VERSIONS[opset]
    if (problem := _problem(lowered)) is not None:
        own = _problem(graph)
        raise ExportError(
            f"the graph is not valid in {'its own' if own else 'the older'} opset {source if own else opset}",
            found=own or problem,
            hint=None if own else "half-precision scales and other newer types do not exist in an older opset",
        )
    return lowered


def _lower_node(scope: Scope, node: onnx.NodeProto, source: int, opset: int, shapes: Shapes) -> None:
    newer, older = _since(node, source), _since(node, opset)
    if newer is not None and newer == older:
        return
    if not of_onnx(node):
        refusal: str | None = f"it is an operator of {node.domain}, not of ONNX"
    elif older is None:
        refusal = f"opset {opset} does not have it"
    elif node.op_type not in _REWRITES:
        refusal = f"version {newer} of it is not known to compute what version {older} does"
    else:
        # Operators changed their signature in opset 18; later versions only add types and attributes.
        rewrite = _REWRITES[node.op_type] if older < 18 else _plain
        refusal = rewrite(scope, node, shapes)
    if refusal is not None:
        raise ExportError(
            f"{title(node)} cannot be written in opset {opset}",
            found=f"{refusal}; the graph is in opset {source}",
            hint="use TensorRT 10 (JetPack 6.1 or later), or a network without this operator",
        )


def _since(node: onnx.NodeProto, opset: int) -> int | None:
    """The opset since which the operator has its form in `opset`; None where `opset` lacks the operator."""
    try:
        return int(defs.get_schema(node.op_type, opset, node.domain).since_version)
    except defs.SchemaError:
        return None


# Attributes that newer versions added or changed, with the values at which they have no effect.
_AT_DEFAULT: dict[str, dict[str, Any]] = {
    "AveragePool": {"dilations": {1}, "ceil_mode": 0},
    "MaxPool": {"ceil_mode": 0},
    "LpPool": {"dilations": {1}, "ceil_mode": 0},
    "Cast": {"saturate": 1, "round_mode": "up"},
    "QuantizeLinear": {"saturate": 1, "block_size": 0, "output_dtype": 0, "precision": 0},
    "DequantizeLinear": {"block_size": 0, "output_dtype": 0},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch", "axes": None},
}
# Attribute values that only newer versions support.
_NEW_VALUES = {
    "Pad": ("mode", ("wrap",)),
    "Resize": ("coordinate_transformation_mode", ("half_pixel_symmetric",)),
    "ScatterElements": ("reduction", ("max", "min")),
    "ScatterND": ("reduction", ("max", "min")),
}


def _plain(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> str | None:
    """Newer versions accept more types, which the checker verifies, and have more attributes."""
    name, newer = _NEW_VALUES.get(node.op_type, ("", ()))
    if (value := attribute(node, name)) in newer:
        return f"its {name} is {value}"
    for name, default in _AT_DEFAULT.get(node.op_type, {}).items():
        value = attribute(node, name, default)
        if (set(value) if isinstance(value, list) else value) != default:
            return f"its {name} is {value}"
        _remove_attribute(node, name)
    return None


def _quantizer(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> str | None:
    """With a zero point, `output_dtype` can only repeat the zero point's type."""
    if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2]:
        _remove_attribute(node, "output_dtype")
    return _plain(scope, node, shapes)


def _reduction(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> str | None:
    """The axes are an attribute in the older version, and an input in the newer one."""
    axes = scope.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.zeros(0, np.int64)
    if axes is None:
        return "its axes are computed, not constant"
    if not axes.size and attribute(node, "noop_with_empty_axes", 0):
        return "it reduces nothing (noop_with_empty_axes)"
    _remove_attribute(node, "noop_with_empty_axes")
    del node.input[1:]
    if axes.size:
        node.attribute.append(onnx.helper.make_attribute("axes", axes.ravel().tolist()))
    return None


def _split(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> str | None:
    """Without sizes, the older version makes equal parts; in the newer one the last part may be smaller."""
    if attribute(node, "num_outputs") is None:
        return None
    parts = len(node.output)
    shape = shapes.get(node.input[0])
    size = shape[int(attribute(node, "axis", 0))] if shape else None
    if size is None:
        return "the size of its input is not known"
    whole = -(-size // parts)
    last = size - whole * (parts - 1)
    if last <= 0:
        return f"{size} cannot be split into {parts} parts of {whole}"
    _remove_attribute(node, "num_outputs")
    if last != whole:
        name = f"{node.output[0]}_sizes"
        sizes = np.array([whole] * (parts - 1) + [last], np.int64)
        scope.graph.initializer.append(onnx.numpy_helper.from_array(sizes, name))
        node.input[:] = [node.input[0], name]
    return None


def _pad(scope: Scope, node: onnx.NodeProto, shapes: Shapes) -> str | None:
    if len(node.input) > 3:
        if node.input[3]:
            return "it pads some axes only"
        del node.input[3:]
    return _plain(scope, node, shapes)


_MORE_TYPES = (
    *("Constant", "ConstantOfShape", "Identity", "Shape", "Size", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
    *("Transpose", "If", "Loop", "Scan", "Equal", "IsInf", "IsNaN", "TopK", "ScatterElements", "ScatterND"),
    *("Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization", "Dropout"),
    *("HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu", "Round"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
)
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys((*_MORE_TYPES, *_AT_DEFAULT), _plain),
    **dict.fromkeys((f"Reduce{name}" for name in _REDUCTIONS), _reduction),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantizer),
    "Pad": _pad,
    "Split": _split,
}


def _remove_attribute(node: onnx.NodeProto, name: str) -> None:
    _keep(node.attribute, lambda held: held.name != name)


def _keep(container: Any, wanted: Callable[[Any], bool]) -> None:
    for index in reversed(range(len(container))):
        if not wanted(container[index]):
            del container[index]


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """The shape of each tensor, None for dynamic sizes; computed only where a Split needs it."""
    if not any(attribute(node, "num_outputs") for scope in scopes(model.graph) for node in scope.graph.node):
        return {}
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _tidy(graph: onnx.GraphProto) -> None:
    """Remove constants that are no longer read, and metadata that older versions of the format lack."""
    inside = list(scopes(graph))
    read = {name for scope in inside for node in scope.graph.node for name in node.input}
    read |= {value.name for scope in inside for value in (*scope.graph.input, *scope.graph.output)}
    for scope in inside:
        body = scope.graph
        _keep(body.initializer, lambda tensor: tensor.name in read)
        _keep(body.node, lambda node: node.op_type != "Constant" or node.output[0] in read)
        for holder in (body, *body.initializer, *body.node, *body.value_info, *body.input, *body.output):
            holder.ClearField("metadata_props")


def _problem(model: onnx.ModelProto) -> str | None:
    """The error from ONNX's checker, with types and shapes checked; None for a valid model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().partition("\n")[0][:300]
    return None
