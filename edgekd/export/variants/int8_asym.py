"""The int8 network with asymmetric uint8 activations, whose Q/DQ pairs ONNX Runtime fuses on every processor."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.dataset import Dataset
from edgekd.errors import BackendError, ExportError
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.export.variants.int8 import ALL_PAIRS
from edgekd.recipe.settings import ExportSettings, Tolerance


def convert(
    variant: Variant[OnnxModel], model: OnnxModel, data: Dataset, settings: ExportSettings, out: Path
) -> OnnxModel:
    """Convert the int8 graph, and compare it with that graph computed as written. Args and Raises as fp32.

    A graph that the engine refuses raises ExportError too: it is left out, and int8 ships without it.
    """
    import onnx

    from edgekd.export import onnx as graphs
    from edgekd.export.integer import integer_graph

    pairs = model.path / ALL_PAIRS
    expected = graphs.expected_of(pairs, data, reference="the int8 graph as written", as_written=True, quantized=True)
    graph = integer_graph(onnx.load(pairs))
    try:
        return graphs.seal(graph, variant, model, expected, settings, out)
    except BackendError as error:
        raise ExportError(error.what, found=error.found, allowed=error.allowed, hint=error.hint) from error


VARIANT = Variant[OnnxModel](
    title="int8-asym",
    note="the same network in int8 for ONNX Runtime, with asymmetric uint8 activations",
    unmeasured="int8-asym is the graph for ONNX Runtime; other engines use int8",
    precision="int8",
    activations="uint8",
    checkpoint="quantized",
    base="int8",
    compared_with="fp32",
    # ONNX Runtime's int8 kernels also round differently; the file's own accuracy is measured.
    tolerance=Tolerance(difference=0.3, agreement=0.9),
    convert=convert,
)
