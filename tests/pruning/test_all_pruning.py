"""Every mobile network that is promised: how far it can be pruned, and what a pruned one is good for.

It rebuilds from its folder alone, answers the same in ONNX Runtime, trains on, is pruned again, and is quantized.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.export.int8 import with_constant_scales
from edgekd.export.onnx import graph_of
from edgekd.export.qdq import with_float_weights, without_fused_branches
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.pruning.checkpoint import prune_checkpoint
from edgekd.pruning.request import Request, check
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.recipe.settings import PruneTarget
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import InputShape, Preprocessing
from edgekd.stages.reparameterize import fold_checkpoint

SIDE = 64
SHAPE = InputShape(3, SIDE, SIDE)
# The fraction of the MACs that is left where every width is as small as multiples of 8 allow.
REACHES = {
    "torchvision/shufflenet_v2_x0_5": 0.104,
    "torchvision/mobilenet_v2": 0.024,
    "torchvision/mobilenet_v3_small": 0.06,
    "torchvision/mobilenet_v3_large": 0.031,
    "torchvision/mnasnet1_0": 0.026,
    "torchvision/squeezenet1_1": 0.038,
    "torchvision/efficientnet_b0": 0.019,
    "torchvision/regnet_y_400mf": 0.021,
    "torchvision/resnet18": 0.013,
    "torchvision/resnet50": 0.006,
    "torchvision/shufflenet_v2_x1_0": 0.029,
    "torchvision/shufflenet_v2_x1_5": 0.014,
    "torchvision/shufflenet_v2_x2_0": 0.007,
    "timm/ghostnet_100": 0.114,
    "timm/mobilenetv4_conv_small": 0.029,
    "timm/repvgg_a0": 0.007,
    "timm/mobileone_s0": 0.017,
    "timm/repghostnet_100": 0.072,
    "cifar/resnet20": 0.153,
    "cifar/resnet56": 0.148,
    "cifar/resnet32x4": 0.007,
    "cifar/resnet9": 0.003,
}
FAST = ("cifar/resnet20",)
NETWORKS = [
    pytest.param(name, reach, marks=() if name in FAST else pytest.mark.slow, id=name)
    for name, reach in REACHES.items()
]


def _folder(path):
    path.mkdir()
    return path


def _student(model, tmp_path) -> Checkpoint:
    """A network whose norms have statistics of its own, its branches folded where it has some."""
    torch.manual_seed(0)
    architecture = Architecture(model=model, num_classes=10)
    network = build(architecture)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.8, 1.2), nn.init.normal_(norm.bias, 0.0, 0.1)
            norm.momentum = None  # a plain mean: right after one batch
    with torch.no_grad():
        network.train()(torch.randn(16, *SHAPE))
    saved = checkpoints.save(
        network.eval(),
        architecture,
        preprocessing=Preprocessing((SIDE, SIDE), (SIDE, SIDE)),
        classes=tuple("0123456789"),
        out=_folder(tmp_path / "built"),
    )
    if not saved.metrics.get("branches"):
        return saved
    return fold_checkpoint(saved, torch.randn(4, *SHAPE), _folder(tmp_path / "folded"))


def _answers(graph, images, file, *, as_written=False):
    file.write_bytes(graph.SerializeToString())
    return torch.from_numpy(OrtSession(file, as_written=as_written).bind(images.numpy())())


def _difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("model", "reach"), NETWORKS)
def test_it_prunes_twice_trains_on_exports_and_is_quantized(model, reach, tmp_path):
    student = _student(model, tmp_path)
    half = Request(PruneTarget(macs=0.5), 8)
    assert check(half, checkpoints.load(student), SHAPE) == pytest.approx(reach, abs=5e-4)
    once = prune_checkpoint(student, half, _folder(tmp_path / "once"))
    twice = prune_checkpoint(once, Request(PruneTarget(macs=0.7), 8), _folder(tmp_path / "twice"))
    assert twice.metrics["macs"] <= 0.35 * student.metrics["macs"]
    network = checkpoints.load(Checkpoint.load(twice.path))
    images = torch.randn(8, *SHAPE)

    # A few steps lower the loss on one batch, and no weight is left out of them.
    optimiser, losses = torch.optim.SGD(network.parameters(), 0.02), []
    network.train()
    for _ in range(4):
        losses.append(F.cross_entropy(network(images), torch.arange(8)))
        optimiser.zero_grad()
        losses[-1].backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    assert losses[-1] < losses[0]
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []

    network.eval()
    with torch.no_grad():
        expected = network(images)
        assert _difference(_answers(graph_of(network, SHAPE, 17), images, tmp_path / "fp32.onnx"), expected) < 1e-4
        quantized = insert(network).model
        observe(quantized)
        quantized(images)
        freeze(quantized)
        graph = with_float_weights(without_fused_branches(graph_of(with_constant_scales(quantized), SHAPE, 17)))
        found = _answers(graph, images, tmp_path / "int8.onnx", as_written=True)
        assert _difference(found, quantized(images)) < 0.1
    assert np.isfinite(found.numpy()).all()
