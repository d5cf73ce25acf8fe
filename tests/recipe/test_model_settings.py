"""What can be said of a network, and of what it was trained with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.recipe.model_settings import InputSettings, ModelSettings, TeacherSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "cifar/resnet8"}, "a teacher must be trained"),
        (
            {"model": "timm/x", "pretrained": True, "checkpoint": "w.pth"},
            "checkpoint and pretrained exclude each other",
        ),
        ({"model": "timm/x", "pretrained": True, "key": "ema"}, "key chooses weights of a checkpoint's file"),
        ({"model": "nets.py:build", "pretrained": True}, "a network of your own has no published weights"),
        (
            {"model": "timm/x", "pretrained": True, "activation": "relu"},
            "activation changes what trained weights compute",
        ),
        ({"model": "t.onnx", "activation": "relu"}, "remove activation"),
        ({"model": "t.onnx", "pretrained": True}, "an ONNX file is used as it is: remove pretrained"),
        (
            {"model": "t.onnx", "train": {}, "arguments": {"a": 1}},
            "an ONNX file is used as it is: remove train, arguments",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TeacherSettings.model_validate_json(json.dumps(values))


def test_only_a_teacher_can_be_an_onnx_file() -> None:
    assert TeacherSettings(model="t.onnx", arguments={}, stem="auto").train is None
    with pytest.raises(ValidationError, match="only a teacher's model can be one"):
        ModelSettings(model="t.onnx")


def test_an_input_has_mean_and_std_together() -> None:
    assert InputSettings.model_validate({"mean": [0.5], "std": [0.5], "image_size": 64}).image_size == (64, 64)
    for wrong, message in (
        ({"mean": [0.5]}, "mean and std belong together"),
        ({"mean": [0.5, 0.5], "std": [0.5, 0.5]}, "three values each, or one for greyscale"),
        ({"mean": [0.5], "std": [0.5, 0.5, 0.5]}, "three values each, or one for greyscale"),
        ({"mean": [0.5], "std": [0.0]}, "std must be above 0"),
        ({"mean": [0.5], "std": [1e-30]}, "std must be from 1e-06"),
    ):
        with pytest.raises(ValidationError, match=message):
            InputSettings.model_validate(wrong)
