from __future__ import annotations

import pytest

from edgekd.errors import ModelError
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


def test_published_weights_of_other_classes_are_not_teacher_as_they_are(monkeypatch):
    """Nothing is downloaded for that: the number of classes is known before."""
    monkeypatch.setattr("edgekd.training.start.build", lambda architecture, pretrained: build(architecture))
    from edgekd.models.build import build

    model = ModelSettings(model="torchvision/squeezenet1_1", pretrained=True)
    with pytest.raises(ModelError, match="published weights of torchvision/squeezenet1_1(?s:.)*teacher.train"):
        start(model, SEEN, CLASSES, adopted=True)
    begun = start(model, SEEN, CLASSES, adopted=False)
    assert begun.note["new_classifier"].classes_before == 1000 and len(begun.warnings) == 1
