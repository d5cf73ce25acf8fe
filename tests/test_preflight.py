"""What is wrong with a network or with its data is found before the first training."""

from __future__ import annotations

from urllib.error import URLError

import pytest
from torchvision import models

import edgekd
from edgekd import pipeline
from edgekd.errors import DataError, ModelError
from edgekd.recipe.load import from_mapping

RECIPE = {
    "name": "tiny",
    "data": {
        "source": "digits",
        "image_size": 16,
        "limit": 320,
        "validation": 0.1,
        "test": 0.1,
        "augment": {"padding": 1},
    },
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 3, "batch_size": 32}},
    "student": {"model": "timm/test_efficientnet"},
    "distill": {"objective": [{"method": "kd", "temperature": 4}], "epochs": 2, "batch_size": 32},
    "prune": {"target": {"macs": 0.7}, "epochs": 1, "batch_size": 32},
    "quantize": {"epochs": 2, "batch_size": 32, "calibration_images": 64},
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.arguments.width=0.5", "unexpected keyword argument 'width'"),
        ("student.checkpoint=weights.pth", "cannot be read as weights"),
        ("student.checkpoint=gone.pth", "does not exist"),
        ("prune.target.macs=0.01", "out of reach"),
        ("student={model: timm/test_vit3, arguments: {img_size: 16}}", "cannot be pruned"),
        ("student={model: torchvision/shufflenet_v2_x0_5}", "ShuffleNetV2 cannot be pruned"),
    ],
)
def test_a_wrong_student_is_refused_before_the_teacher_is_trained(tmp_path, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError) as caught:
        edgekd.run(RECIPE, overrides=[override])
    assert message in str(caught.value)
    # A checkpoint that is not there is found before even the data is read.
    stages = [path.name[:4] for path in (tmp_path / "runs/tiny").glob("stages/*")]
    assert stages == ([] if "gone" in override else ["data"])


def test_too_few_images_to_calibrate_on_are_found_before_any_training(tmp_path):
    with pytest.raises(DataError, match="too few images(?s:.)*12 in the training split(?s:.)*add training images"):
        edgekd.run(RECIPE, tmp_path, ["data.limit=12", "data.validation=0.01"])
    assert [path.name[:4] for path in (tmp_path / "stages").iterdir()] == ["data"]


def test_published_weights_that_cannot_be_fetched_are_found_before_any_training(tmp_path, monkeypatch):
    """A plan downloads nothing, so it cannot know."""

    def offline(self, **_):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(models.SqueezeNet1_1_Weights, "get_state_dict", offline)
    recipe = {**RECIPE, "student": {"model": "torchvision/squeezenet1_1", "pretrained": True}}
    del recipe["prune"], recipe["quantize"]
    with pytest.raises(
        ModelError,
        match=r"squeezenet1_1 cannot be fetched\n  found: URL(?s:.)*put it at .*/checkpoints/squeezenet1_1-",
    ):
        edgekd.run(recipe, tmp_path)
    assert [path.name[:4] for path in (tmp_path / "stages").iterdir()] == ["data"]
    assert "needs data" not in {stage.why for stage in pipeline.plan(from_mapping(recipe), tmp_path)}
