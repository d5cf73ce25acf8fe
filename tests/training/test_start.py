from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.reparameterization import fold
from edgekd.recipe.settings import ModelSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.training.start import start

SEEN = Preprocessing((16, 16), (16, 16))
CLASSES = ("a", "b", "c")


def test_a_new_network_is_as_wide_as_all_its_heads():
    begun = start(ModelSettings(model="cifar/resnet8"), SEEN, CLASSES, adopted=False, heads={"shape": ("x", "y")})
    assert begun.architecture.num_classes == 5 and begun.architecture.heads == {"shape": ("x", "y")}
    assert begun.network.linear.out_features == 5
    assert (begun.warnings, begun.note) == ([], {})


def test_small_images_get_a_small_stem():
    model = ModelSettings(model="torchvision/resnet18")
    small, large = (
        start(model, Preprocessing((side, side), (side, side)), CLASSES, adopted=False).architecture.small_stem
        for side in (16, 224)
    )
    assert small and not large


def test_a_student_can_have_relu_instead_of_its_hard_swish():
    model = ModelSettings(model="torchvision/mobilenet_v3_small", activation="relu")
    begun = start(model, SEEN, CLASSES, adopted=False)
    assert begun.architecture.edits == ({"edit": "activation", "activation": "relu"},)
    assert not any(isinstance(module, torch.nn.Hardswish) for module in begun.network.modules())
    with pytest.raises(ModelError, match="no hard-swish and no SiLU"):
        start(model.model_copy(update={"model": "cifar/resnet8"}), SEEN, CLASSES, adopted=False)


def test_published_weights_of_other_classes_are_not_teacher_as_they_are(monkeypatch):
    """Nothing is downloaded for that: the number of classes is known before."""
    monkeypatch.setattr("edgekd.training.start.build", lambda architecture, pretrained: build(architecture))
    from edgekd.models.build import build

    model = ModelSettings(model="torchvision/squeezenet1_1", pretrained=True)
    with pytest.raises(ModelError, match="published weights of torchvision/squeezenet1_1(?s:.)*teacher.train"):
        start(model, SEEN, CLASSES, adopted=True)
    begun = start(model, SEEN, CLASSES, adopted=False)
    assert begun.note["new_classifier"].classes_before == 1000 and len(begun.warnings) == 1


@torch.no_grad()
def test_weights_of_an_rgb_network_start_one_for_greyscale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rgb = build(Architecture(model="cifar/resnet8", num_classes=len(CLASSES))).eval()
    torch.save({"state_dict": rgb.state_dict()}, tmp_path / "rgb.pth")
    grey = Preprocessing((16, 16), (16, 16), (0.4,), (0.2,))
    model = ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "rgb.pth")
    begun = start(model, grey, CLASSES, adopted=False)
    images = torch.randn(2, 1, 16, 16)
    assert torch.allclose(begun.network.eval()(images), rgb(images.expand(2, 3, 16, 16)), atol=1e-5)
    assert any("summed for greyscale" in warning for warning in begun.warnings)
    torch.save(begun.network.state_dict(), tmp_path / "grey.pth")
    again = start(model.model_copy(update={"checkpoint": tmp_path / "grey.pth"}), grey, CLASSES, adopted=False)
    assert torch.equal(again.network.eval()(images), begun.network(images)) and again.warnings == []


def test_trained_weights_that_are_used_as_they_are_keep_the_standard_stem(tmp_path: Path) -> None:
    """With stride 1 they would fit as well: only the answers would be others."""
    network = build(Architecture(model="timm/mobilenetv3_small_050", num_classes=len(CLASSES)))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = ModelSettings(model="timm/mobilenetv3_small_050", checkpoint=tmp_path / "w.pth")
    assert not start(model, SEEN, CLASSES, adopted=True).architecture.small_stem
    assert start(model, SEEN, CLASSES, adopted=False).architecture.small_stem
    small = model.model_copy(update={"stem": "small"})
    assert start(small, SEEN, CLASSES, adopted=True).architecture.small_stem


@torch.no_grad()
def test_weights_of_a_folded_network_are_taken_as_such(tmp_path: Path) -> None:
    folded = fold(build(Architecture(model="timm/repghostnet_050", num_classes=len(CLASSES)))).model
    torch.save({"state_dict": folded.state_dict()}, tmp_path / "deployed.pth")
    seen = Preprocessing((32, 32), (32, 32))
    model = ModelSettings(model="timm/repghostnet_050", checkpoint=tmp_path / "deployed.pth")
    begun = start(model, seen, CLASSES, adopted=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(begun.network.eval()(images), folded(images))
    assert begun.warnings[0].startswith("The weights of deployed.pth are those of a network whose branches are folded")
    rebuilt = build(begun.architecture)
    rebuilt.load_state_dict(begun.network.state_dict())

    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other.pth do not fit this network(?s:.)*missing"):
        start(model.model_copy(update={"checkpoint": tmp_path / "other.pth"}), seen, CLASSES, adopted=True)


def test_published_weights_with_nan_are_refused(monkeypatch):
    from edgekd.models.build import build

    def damaged(architecture, pretrained):
        network = build(architecture)
        if pretrained:
            torch.nn.init.constant_(network.conv1.weight, float("nan"))
        return network

    monkeypatch.setattr("edgekd.training.start.build", damaged)
    model = ModelSettings(model="torchvision/resnet18", pretrained=True)
    with pytest.raises(
        ModelError, match=r"torchvision/resnet18, as published, have values(?s:.)*conv1\.weight has NaN"
    ):
        start(model, SEEN, CLASSES, adopted=False)
    assert start(model, SEEN, CLASSES, adopted=False, fetch=False).network.conv1.weight.isfinite().all()
