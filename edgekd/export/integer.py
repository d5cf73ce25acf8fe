"""The int8 graph for ONNX Runtime: uint8 activations, in the forms for which it has integer kernels."""

from __future__ import annotations

import onnx

from edgekd.errors import ExportError
from edgekd.export._pairs import PairedGraph
from edgekd.export.gates import integer_hard_sigmoid, integer_hard_swish, integer_silu
from edgekd.export.integer_layers import integer_bias, integer_pool, padded_channels, shared_grids
from edgekd.export.qdq import with_unsigned_activations
from edgekd.export.wide_depthwise import widened_depthwise


def integer_graph(pairs: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph with a symmetric int8 pair after each operator, which stays as it is.

    Raises:
        ExportError: the shapes or types of what was made do not fit together.
    """
    try:
        return _converted(pairs)
    except onnx.shape_inference.InferenceError as error:
        why = " ".join(str(error).split())
        raise ExportError("this graph has no form with uint8 activations", found=why) from error


def _converted(pairs: onnx.ModelProto) -> onnx.ModelProto:
    own = PairedGraph(with_unsigned_activations(pairs))
    # The gates change grids, which the biases depend on.
    for step in (integer_hard_sigmoid, integer_hard_swish, integer_silu, shared_grids, integer_pool, integer_bias):
        step(own)
    padded_channels(own)
    widened_depthwise(own)
    return own.finish()
