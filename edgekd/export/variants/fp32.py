"""Single precision: the network as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.data.dataset import Dataset
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.recipe.settings import ExportSettings, Tolerance

if TYPE_CHECKING:  # it brings PyTorch
    from edgekd.models.checkpoint import Checkpoint


def convert(
    variant: Variant[Checkpoint], checkpoint: Checkpoint, data: Dataset, settings: ExportSettings, out: Path
) -> OnnxModel:
    """Export to `input` (batch, C, H, W) float32, normalised, and `logits` (batch, K) float32, with a dynamic batch.

    Args:
        variant: the variant that is exported.
        checkpoint: the network.
        data: the graph is verified on its validation images.
        settings: of the export.
        out: an empty folder, which becomes the artifact.

    Raises:
        ExportError: the network cannot be exported, the graph is not valid, or its outputs differ.
    """
    from edgekd.export import onnx as graphs
    from edgekd.models import checkpoint as checkpoints
    from edgekd.models.onnx_network import OnnxNetwork

    network = checkpoints.load(checkpoint)
    graph = graphs.graph_of(network, checkpoint.details.preprocessing.shape, settings.opset)
    reference = "the teacher's own file" if isinstance(network, OnnxNetwork) else "PyTorch in float32"
    expected = graphs.expected_of(network, data, reference=reference)
    return graphs.seal(graph, variant, checkpoint, expected, settings, out)


VARIANT: Variant[Checkpoint] = Variant(
    title="fp32",
    note="graph in single precision",
    precision="fp32",
    activations="float32",
    tolerance=Tolerance(difference=1e-3, agreement=0.999),
    convert=convert,
)
