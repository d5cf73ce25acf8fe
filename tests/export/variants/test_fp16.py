"""Half precision: its size, its proof, and a network whose values do not fit into it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import ExportSettings
from edgekd.stages.export import STAGE


def test_fp16_halves_the_file_and_reports_its_numerics(exported):
    _, models = exported
    assert models["fp16"].size_bytes < 0.65 * models["fp32"].size_bytes
    report = models["fp16"].metrics["numerics"]
    assert 0 < report["max_difference"] <= report["tolerance"]["difference"]
    assert report["agreement"] >= report["tolerance"]["agreement"]
    assert models["fp16"].metrics["float32"]["operators"] == [] and len(STAGE.facts(models["fp16"])) == 2


@pytest.fixture(scope="module")
def large(small_digits, tmp_path_factory):
    """A trained-like ResNet-8 with millions inside its last block, in fp32 and fp16."""
    place = tmp_path_factory.mktemp("large")
    for folder in ("float", "fp32", "fp16"):
        (place / folder).mkdir()
    torch.manual_seed(4)
    architecture = Architecture(model="cifar/resnet8", num_classes=10)
    network = build(architecture)
    network.train()(torch.from_numpy(real_inputs(small_digits)))
    # The first block's first convolution computes a million times as much; the second undoes it.
    block = network.get_submodule("layer1.0")
    with torch.no_grad():
        block.bn1.weight *= 1e6
        block.bn1.bias *= 1e6
        block.conv2.weight *= 1e-6
    made = {"preprocessing": small_digits.details.preprocessing, "classes": small_digits.classes}
    trained = checkpoints.save(network, architecture, out=place / "float", **made)
    settings = ExportSettings()
    fp32 = find("fp32").export(trained, small_digits, settings, place / "fp32")
    return fp32, find("fp16").export(fp32, small_digits, settings, place / "fp16")


def test_what_float16_cannot_hold_stays_in_float32_and_is_named(large, small_digits):
    kept = large[1].metrics["float32"]
    assert 2 <= len(kept["operators"]) < kept["of"] / 4
    assert max(each["value"] for each in kept["operators"]) > 1e6
    (line,) = STAGE.facts(large[1])[2:]
    assert " in float32, since float16 ends at 65,504: " in line and "(Conv), an output up to " in line


def test_its_answers_hold_where_every_operator_computes_in_its_own_type(large, small_digits):
    inputs = real_inputs(small_digits, 4)
    fp32, fp16 = (ReferenceEvaluator(onnx.load(each.graph)).run(None, {"input": inputs})[0] for each in large)
    assert np.abs(fp16 - fp32).max() < 1e-2 * np.abs(fp32).max()
