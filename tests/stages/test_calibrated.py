"""What a calibrated checkpoint says of itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgekd.errors import DataError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import QuantizeSettings
from edgekd.stages import _calibrated as calibration


@pytest.fixture(scope="module")
def student(small_digits, tmp_path_factory) -> Checkpoint:
    """Norms before convolutions: none can be folded."""
    torch.manual_seed(0)
    architecture = Architecture(model="timm/resnetv2_18", num_classes=10)
    network = build(architecture)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    return checkpoints.save(
        network,
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=tmp_path_factory.mktemp("student"),
    )


def test_only_what_nobody_asked_for_is_warned_of(student, small_digits, tmp_path):
    found = calibration.calibrated(student, small_digits, 32, method="min-max", keep=["head.fc", "stages.0"])
    quantized = found.made.quantized
    kept = [name for name in quantized.left_in_float if name == "head.fc" or name.startswith("stages.0.")]
    saved = calibration.save(found, quantized, dict.fromkeys(kept, "wanted"), {}, tmp_path)
    left = saved.metrics["left_in_float"]
    assert set(kept) < set(left) and saved.metrics["operations"] > len(left)
    (warning,) = saved.metrics["warnings"]
    assert warning.startswith(f"{len(left) - len(kept)} of the network's operations stay in float: stages.1.")
    assert saved.details.architecture.edits[-1]["float"] == kept
    assert saved.metrics["calibration_images"] == 32


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        ({"calibration": "entropy", "mode": "ptq"}, "calibration: auto, or quantize.mode: qad"),
        ({"keep_float": []}, "calibration: percentile, entropy or mse, or quantize.keep_float: auto"),
        ({"calibration": "mse"}, "calibration: auto"),
    ],
)
def test_a_calibration_that_loses_much_is_warned_of_with_its_remedies(settings, remedies, small_digits):
    before, after = (SimpleNamespace(metrics={"validation_accuracy": value}) for value in (0.831, 0.174))
    (warning,) = calibration.lost_much(before, after, small_digits, QuantizeSettings(**settings))
    assert "cost 65.7 points of accuracy on the validation images, from 83.1% to 17.4%" in warning
    assert warning.endswith(f"Try quantize.{remedies}.")


@pytest.mark.parametrize("before", [{"validation_accuracy": 0.86}, {}])
def test_a_small_loss_or_one_from_an_unknown_score_is_no_warning(before, small_digits):
    after = SimpleNamespace(metrics={"validation_accuracy": 0.82})
    found = calibration.lost_much(SimpleNamespace(metrics=before), after, small_digits, QuantizeSettings())
    assert found == []


@pytest.mark.parametrize(("asked", "available", "count"), [(512, 300, 300), (64, 300, 64), (16, 16, 16)])
def test_as_many_images_as_there_are_and_as_were_asked_for(asked, available, count):
    assert calibration.enough(asked, available) == count


@pytest.mark.parametrize(("asked", "available"), [(15, 300), (512, 15)])
def test_too_few_images_are_refused(asked, available):
    with pytest.raises(DataError, match="too few images to calibrate int8 on"):
        calibration.enough(asked, available)
