from __future__ import annotations

import json

import pytest
from torchvision import models

from edgekd.errors import UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.sources import timm
from edgekd.models.weights import save_state
from edgekd.recipe.settings import DataSettings, ModelSettings
from edgekd.training.classes import class_names

DATA = DataSettings(source="unlabelled", image_size=32)


def test_a_checkpoint_brings_its_classes(exported):
    student, _ = exported
    model = ModelSettings(model="cifar/resnet8", checkpoint=student.path)
    assert class_names(model, DATA) == student.classes


def test_a_folder_of_a_hub_brings_its_classes_or_their_number(tmp_path):
    save_state(build(Architecture(model="timm/test_efficientnet", num_classes=3)), tmp_path / "model.safetensors")
    model = ModelSettings(model="timm/test_efficientnet", checkpoint=tmp_path)
    config = {"architecture": "test_efficientnet", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": ["cat", "dog", "owl"]}))
    assert class_names(model, DATA) == ("cat", "dog", "owl")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert class_names(model, DATA) == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("count", [2, 5])
def test_a_file_of_weights_brings_their_number(tmp_path, count):
    save_state(build(Architecture(model="cifar/resnet8", num_classes=count)), tmp_path / "w.safetensors")
    model = ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "w.safetensors")
    assert class_names(model, DATA) == tuple(f"class {number}" for number in range(count))


def test_published_weights_bring_their_names_each_once():
    torchvision = class_names(ModelSettings(model="torchvision/resnet18", pretrained=True), DATA)
    assert torchvision == tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])
    names = class_names(ModelSettings(model="timm/resnet18", pretrained=True), DATA)
    assert len(set(names)) == 1000 and names[0] == torchvision[0] == "tench"
    assert names[134] == "crane (134)" and names[517] == "crane (517)"


def test_weights_without_a_classifier_have_no_names():
    assert timm.class_names("vit_small_patch14_dinov2") == ()


def test_the_recipes_names_come_first(tmp_path):
    save_state(build(Architecture(model="cifar/resnet8", num_classes=3)), tmp_path / "w.safetensors")
    model = ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / "w.safetensors")
    assert class_names(model, DATA.model_copy(update={"classes": ("cat", "dog", "emu")})) == ("cat", "dog", "emu")
    with pytest.raises(UsageError, match="2 names(?s:.)*3, one per logit"):
        class_names(model, DATA.model_copy(update={"classes": ("cat", "dog")}))
