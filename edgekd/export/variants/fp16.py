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
    """The fp32 graph in half precision, but for operators beyond its range. Args and Raises as fp32."""
    import onnx

    from edgekd.export import onnx as graphs
    from edgekd.export.half import to_float16

    expected = graphs.expected_of(model.graph, data, reference="the fp32 graph")
    half, kept = to_float16(onnx.load(model.graph), expected.inputs)
    return graphs.seal(half, variant, model, expected, settings, out, facts={"float32": kept.facts})


VARIANT = Variant[OnnxModel](
    title="fp16",
    note="graph in half precision, for engines that compute in it",
    precision="fp16",
    activations="float16",
    base="fp32",
    tolerance=Tolerance(difference=3e-2, agreement=0.99),
    convert=convert,
)
