"""Half precision: its size, its proof, and a network whose values do not fit into it."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2

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


@pytest.fixture(scope="module")
def sensitive():
    """MobileNetV2 without training, far more sensitive than a trained one, with folded batch norms; and images."""
    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics are plain averages
    images = functional.interpolate(torch.randn(36, 3, 12, 12), size=(64, 64), mode="bilinear")
    with torch.no_grad():
        network.train()(images[:32])
    for parent in list(network.eval().modules()):
        for (name, layer), (following, norm) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, following, nn.Identity())
    return network, images[32:]


def _summed_in_float16(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """A convolution that rounds to float16 after each term, from the first to the last."""
    weight = layer.weight.float().unflatten(0, (layer.groups, -1))
    high, wide = layer.padding
    padded = functional.pad(images.float(), (wide, wide, high, high))
    patches = functional.unfold(padded, layer.kernel_size, stride=layer.stride)
    terms = patches.unflatten(1, (layer.groups, -1)).unbind(2)
    total = layer.bias.float().view(1, layer.groups, -1, 1)
    for term, factor in zip(terms, weight.flatten(2).unbind(2), strict=True):
        total = torch.addcmul(total, term.unsqueeze(2), factor[None, :, :, None]).half().float()
    rows = (padded.shape[2] - layer.kernel_size[0]) // layer.stride[0] + 1
    return total.flatten(1, 2).unflatten(2, (rows, -1)).half()


def test_the_tolerance_leaves_room_for_engines_that_add_in_float16(sensitive, monkeypatch):
    network, images = sensitive
    allowed = find("fp16").tolerance.difference
    with torch.no_grad():
        expected = network(images)
        half = copy.deepcopy(network).half()
        rounded = half(images.half()).float()
        monkeypatch.setattr(nn.Conv2d, "forward", _summed_in_float16)
        summed = half(images.half()).float()
    by_operator, by_term = (float((each - expected).abs().max() / expected.abs().max()) for each in (rounded, summed))
    assert 0.01 < by_operator < allowed / 2
    assert max(by_operator, 0.03) < by_term < allowed
