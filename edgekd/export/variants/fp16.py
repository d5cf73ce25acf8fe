"""Half precision, for engines that compute in it; inputs and outputs stay float32."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.dataset import Dataset
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.recipe.settings import ExportSettings, Tolerance


def convert(
    variant: Variant[OnnxModel], model: OnnxModel, data: Dataset, settings: ExportSettings, out: Path
) -> OnnxModel:
    """The fp32 graph in half precision. Args and Raises as fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel as OrtGraph

    from edgekd.export import onnx as graphs

    half = OrtGraph(convert_float_to_float16(onnx.load(model.graph), keep_io_types=True))
    half.topological_sort()  # the converter appends its casts at the end
    expected = graphs.expected_of(model.graph, data, reference="the fp32 graph")
    return graphs.seal(half.model, variant, model, expected, settings, out)


VARIANT = Variant[OnnxModel](
    title="fp16",
    note="graph in half precision, for engines that compute in it",
    precision="fp16",
    activations="float16",
    base="fp32",
    tolerance=Tolerance(difference=3e-2, agreement=0.99),
    convert=convert,
)
