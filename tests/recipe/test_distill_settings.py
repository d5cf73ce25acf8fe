"""Settings of trainings with a teacher, and what later trainings take over from them."""

from __future__ import annotations

import pytest

from edgekd.errors import RecipeError
from edgekd.recipe import load as recipe

GOOD = {
    "name": "shoes",
    "data": {"source": "digits", "image_size": 32},
    "teacher": {"model": "cifar/resnet20", "train": {"epochs": 2, "learning_rate": 0.1}},
    "student": {"model": "torchvision/mobilenet_v3_small"},
}


def test_label_smoothing_belongs_to_a_training_from_labels():
    with pytest.raises(RecipeError, match="distill.label_smoothing: unknown key"):
        recipe.from_mapping(GOOD, ["distill.label_smoothing=0.1"])
    overrides = ["teacher.train.label_smoothing=0.1", "distill.epochs=7", "distill.seed=3"]
    settings = recipe.from_mapping(GOOD, overrides).settings
    assert settings.teacher.train is not None and settings.teacher.train.label_smoothing == 0.1
    assert (settings.distill.training.epochs, settings.distill.training.seed) == (7, 3)
    assert settings.distill.training.label_smoothing == 0.0


def test_layers_are_one_path_or_a_list():
    term = {"method": "fitnets", "student_layers": "layer1", "teacher_layers": ["layer2"]}
    (parsed,) = recipe.from_mapping({**GOOD, "distill": {"objective": [term]}}).settings.distill.objective
    assert (parsed.student_layers, parsed.teacher_layers) == (("layer1",), ("layer2",))


def test_further_training_takes_over_what_it_does_not_set():
    distill = {"batch_size": 16, "optimizer": "adamw", "learning_rate": 0.001, "threads": 1}
    sections = {"distill": distill, "prune": {}, "quantize": {"batch_size": 8, "learning_rate": 0.5}}
    settings = recipe.from_mapping({**GOOD, **sections}).settings
    assert (settings.prune.batch_size, settings.prune.optimizer, settings.prune.threads) == (16, "adamw", 1)
    assert settings.prune.learning_rate == 0.0002
    assert (settings.prune.epochs, settings.quantize.epochs) == (10, 3)
    assert (settings.quantize.batch_size, settings.quantize.learning_rate) == (8, 0.5)
    assert settings.quantize.optimizer == "adamw"
    plain = recipe.from_mapping({**GOOD, "prune": {}, "quantize": {}}).settings
    assert (plain.prune.batch_size, plain.prune.learning_rate, plain.quantize.learning_rate) == (None, None, None)


@pytest.mark.parametrize(("distill", "found"), [(1, 2), (14, 2), (26, 3), (60, 6), (300, 30)])
def test_training_through_quantizers_takes_a_tenth_of_the_epochs_and_a_hundredth_of_the_rate(distill, found):
    sections = {"distill": {"epochs": distill, "learning_rate": 0.05}, "quantize": {}}
    settings = recipe.from_mapping({**GOOD, **sections}).settings
    assert (settings.quantize.epochs, settings.quantize.learning_rate) == (found, 0.0005)
    assert recipe.from_mapping({**GOOD, **sections}, ["quantize.epochs=1"]).settings.quantize.epochs == 1


@pytest.mark.parametrize("scales", ["observed", "learned"])
@pytest.mark.parametrize(("key", "value"), [("epochs", 1), ("freeze_after", 0.0), ("freeze_after", 0.1)])
def test_scales_that_would_be_fixed_before_they_move_are_refused(scales, key, value):
    section = {"scales": scales, "epochs": 3, key: value}
    with pytest.raises(RecipeError, match=f"{scales} scales would be fixed before the first of"):
        recipe.from_mapping({**GOOD, "quantize": section})
    recipe.from_mapping({**GOOD, "quantize": {**section, "scales": "calibrated"}})
    recipe.from_mapping({**GOOD, "quantize": {**section, "mode": "ptq"}})
