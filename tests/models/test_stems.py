from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd import plugins
from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.stems import shrink_stem, wants_small_stem

# How often the last feature map is smaller than the image, with the small stem.
STRIDES = {
    "torchvision/mobilenet_v2": 16,
    "torchvision/mobilenet_v3_small": 16,
    "torchvision/shufflenet_v2_x0_5": 8,
    "torchvision/squeezenet1_1": 4,
    "torchvision/mnasnet0_5": 16,
    "torchvision/efficientnet_b0": 16,
    "torchvision/resnet18": 8,
    "timm/mobilenetv3_small_050": 16,
    "timm/resnet18": 8,
    "timm/efficientnet_lite0": 16,
    "timm/resnet10t": 8,
}


def _last_map(model: nn.Module, side: int) -> int:
    """The side of the smallest map that a convolution with more than one pixel makes."""
    sides = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return min(size for size in sides if size > 1)


@pytest.mark.parametrize(("name", "stride"), STRIDES.items())
def test_small_stems_keep_the_image(name, stride):
    assert wants_small_stem(name, (32, 32), "auto") and not wants_small_stem(name, (224, 224), "auto")
    model = build(Architecture(model=name, num_classes=4, small_stem=True))
    # Max-pools round up or down; SqueezeNet's odd sizes are within one pixel.
    assert abs(_last_map(model, 64) - 64 // stride) <= 1


def test_a_seven_by_seven_stem_becomes_its_centre():
    model = build(Architecture(model="torchvision/resnet18", num_classes=2))
    wide = model.get_submodule("conv1").weight.clone()
    shrink_stem(model, "torchvision/resnet18")
    assert torch.equal(model.get_submodule("conv1").weight, wide[:, :, 2:5, 2:5])


def test_a_stem_that_nobody_knows_is_refused():
    with pytest.raises(ModelError, match="no small-image stem for torchvision/vit_b_16"):
        wants_small_stem("torchvision/vit_b_16", (32, 32), "small")
    assert not wants_small_stem("torchvision/vit_b_16", (32, 32), "auto")


@pytest.mark.parametrize(
    "name", ["timm/resnext26ts", "timm/lcnetv2_small", "cifar/resnet20", "/nets/resnet18.py:build"]
)
def test_another_stem_stays_as_it_is(name):
    """Also where the name is like that of a family with a stem that is known."""
    assert not wants_small_stem(name, (32, 32), "auto")


MINE = """
from torch import nn

from edgekd.models.sources import ModelSource


def build(name, *, num_classes, pretrained=False):
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.Flatten(), nn.Linear(8, num_classes))


def stem(name):
    return ("0", None) if name == "wide" else None


MODELS = ModelSource(names=lambda: ("resnet18", "wide"), build=build, published_classes=lambda name: 0, stem=stem)
"""


def test_a_source_from_outside_states_its_own_stems(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(MINE)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    assert not wants_small_stem("mine/resnet18", (32, 32), "auto") and wants_small_stem("mine/wide", (32, 32), "auto")
    network = build(Architecture(model="mine/wide", num_classes=2, small_stem=True))
    assert network[0].stride == (1, 1) and network[0].kernel_size == (3, 3)
