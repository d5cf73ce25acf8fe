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


# float16 has 11 bits: each rounding is off by up to 2^-11 of a value, 4.9e-4. Every operator rounds its outputs, and an
# engine that adds in float16 (ONNX Runtime does on ARM) rounds at each of an operator's hundreds to thousands of terms.
# How much of that reaches the logits depends on the network. Measured at 224x224 on 2 images (8 for the trained one),
# of the largest logit: as an x86 CPU computes the graph | with every operator rounded | by ONNX Runtime 1.32's kernels
# for ARM (under QEMU) | with all sums in float16, from the first term to the last:
#
#     MobileNetV2, trained  0.012  0.011  0.021  0.022        without training:
#     MobileNetV2           0.013  0.018  0.045  0.057        ShuffleNetV2 x1.0     0.009  0.012  0.030  0.029
#     MobileNetV3 small     0.002  0.005  0.012  0.031        MobileNetV3 large     0.007  0.014  0.029  0.036
#     EfficientNet-B0       0.003  0.007  0.019  0.079        RegNetX-400MF         0.010  0.014  0.039  0.031
#     MNASNet 1.0           0.009  0.014  0.031  0.030        ResNet-18             0.001  0.001  0.012  0.011
#                                                             ResNet-50             0.014  0.021  0.068  0.081
#
# 0.1 is five times what a trained network was seen to deviate by, and 1.5 times the most of those without training:
# the worst case, because their logits are small. With all sums in float16, small ones (MobileNetV2 at 64x64) reach 0.1.
_DIFFERENCE = 0.1

VARIANT = Variant[OnnxModel](
    title="fp16",
    note="graph in half precision, for engines that compute in it",
    precision="fp16",
    activations="float16",
    base="fp32",
    tolerance=Tolerance(difference=_DIFFERENCE, agreement=0.99),
    convert=convert,
)
