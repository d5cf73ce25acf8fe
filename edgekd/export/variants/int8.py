"""Int8 with explicit, symmetric Q/DQ pairs, for TensorRT and OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.data.dataset import Dataset
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.recipe.settings import ExportSettings, Tolerance

# A second graph in the same folder, with both inputs of every addition quantized, from which int8-asym is made.
ALL_PAIRS = "all-pairs.onnx"

if TYPE_CHECKING:  # it brings PyTorch
    from edgekd.models.checkpoint import Checkpoint


def convert(
    variant: Variant[Checkpoint], checkpoint: Checkpoint, data: Dataset, settings: ExportSettings, out: Path
) -> OnnxModel:
    """The network with int8 weights, constant scales and zero points 0. Args and Raises as fp32.

    Raises:
        ModelError: the checkpoint has no quantizers.
    """
    from edgekd.export import onnx as graphs
    from edgekd.export.int8 import rename_weights, with_constant_scales
    from edgekd.export.qdq import with_float_weights, without_fused_branches
    from edgekd.export.subnormals import flush_subnormals
    from edgekd.models import checkpoint as checkpoints

    network = checkpoints.load(checkpoint)
    size = checkpoint.details.preprocessing.shape
    pairs = graphs.graph_of(with_constant_scales(network), size, settings.opset)
    rename_weights(pairs)
    graph = with_float_weights(without_fused_branches(pairs))
    flush_subnormals(pairs)
    graphs.write(pairs, out, ALL_PAIRS)
    expected = graphs.expected_of(network, data, reference="PyTorch with fake quantization", quantized=True)
    return graphs.seal(graph, variant, checkpoint, expected, settings, out)


VARIANT: Variant[Checkpoint] = Variant(
    title="int8",
    note="int8 with explicit Q/DQ, for TensorRT and OpenVINO",
    unmeasured="int8 is the graph for TensorRT and OpenVINO: ONNX Runtime does not fuse it, so its latency there would "
    "be meaningless",
    precision="int8",
    activations="int8",
    checkpoint="quantized",
    compared_with="fp32",
    # The graph has one Q/DQ pair less at every addition, and values between two steps may round either way, in this
    # engine or in another: everything after them changes.
    tolerance=Tolerance(difference=0.2, agreement=0.95),
    as_written=True,
    convert=convert,
)
