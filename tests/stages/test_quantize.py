"""Calibration and quantization-aware distillation, on real images."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import DataError, ModelError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.weights import read_state
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, QuantizeSettings, TrainSettings
from edgekd.stages._qad import freezing
from edgekd.stages.quantize import calibrate
from edgekd.training.host import resolve_precision
from edgekd.training.train import TrainingSetup, train

STILL = AugmentSettings(crop="none", flip=False)
OBJECTIVE = DistillSettings().objective


def _folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


@pytest.fixture(scope="module")
def student(small_digits, tmp_path_factory) -> Checkpoint:
    settings = TrainSettings(epochs=12, batch_size=32)
    model = ModelSettings(model="cifar/resnet8")
    return train(model, small_digits, TrainingSetup(settings, STILL), tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def calibrated(student, small_digits, tmp_path_factory) -> Checkpoint:
    return calibrate(student, small_digits, 64, tmp_path_factory.mktemp("calibrated"))


def _quantized(teacher, calibrated, data, settings, out, progress=None) -> Checkpoint:
    setup = TrainingSetup(settings, STILL, progress, freezing(settings))
    return distill(calibrated, TeacherSetup(teacher), OBJECTIVE, data, setup, out)


def _amax(checkpoint: Checkpoint) -> dict[str, float]:
    return {path: float(q.amax) for path, q in activation_quantizers(checkpoints.load(checkpoint)).items()}


def test_calibration_keeps_the_accuracy_and_states_what_it_did(student, calibrated):
    assert calibrated.metrics["calibration_images"] == 64
    assert calibrated.metrics["quantized_values"] == len(_amax(calibrated)) > 10
    assert sum(calibrated.metrics["calibration_methods"].values()) == calibrated.metrics["quantized_values"]
    assert calibrated.metrics["corrected_biases"] > 5
    assert calibrated.metrics["validation_accuracy"] > student.metrics["validation_accuracy"] - 0.1
    assert student.metrics["validation_accuracy"] > 0.5


def test_an_operation_that_stays_in_float_is_named_and_counted(small_digits, tmp_path):
    architecture = Architecture(
        model="timm/resnetv2_18", num_classes=10
    )  # norms before convolutions: none can be folded
    made = checkpoints.save(
        build(architecture),
        architecture,
        preprocessing=small_digits.details.preprocessing,
        classes=small_digits.classes,
        out=_folder(tmp_path, "float"),
    )
    shown = []
    found = calibrate(
        made, small_digits, 48, _folder(tmp_path, "calibrated"), progress=lambda *each: shown.append(each)
    )
    assert shown == [(32, 48, "images"), (48, 48, "images")]
    left = found.metrics["left_in_float"]
    assert left and all("norm" in name for name in left)
    (warning,) = found.metrics["warnings"]
    assert warning.startswith(f"{len(left)} of the network's operations stay in float: {left[0]}")


def test_the_method_that_is_asked_for_is_used(student, calibrated, small_digits, tmp_path):
    found = calibrate(student, small_digits, 64, tmp_path, method="percentile")
    assert found.metrics["calibration_methods"] == {"percentile": found.metrics["quantized_values"]}
    assert _amax(found) != _amax(calibrated)


def test_one_image_is_too_few_to_calibrate_on(student, small_digits, tmp_path):
    with pytest.raises(DataError, match="too few images(?s:.)*calibration_images: 1(?s:.)*at least 16"):
        calibrate(student, small_digits, 1, tmp_path)
    with pytest.raises(ValueError, match="greater than or equal to 16"):
        QuantizeSettings(calibration_images=1)


def test_a_quantized_network_is_not_quantized_again(calibrated, small_digits, tmp_path):
    with pytest.raises(ModelError, match="already quantized"):
        calibrate(calibrated, small_digits, 64, tmp_path)


def test_a_checkpoint_whose_quantizers_are_missing_is_refused(calibrated, tmp_path):
    state = {name: value for name, value in read_state(calibrated.weights).items() if "quantizers." not in name}
    bare = _folder(tmp_path, "bare")
    save_file(state, bare / "weights.safetensors")
    broken = Checkpoint.seal(bare, details=calibrated.details, metrics=calibrated.metrics)
    with pytest.raises(ModelError, match="quantizers of .* are missing(?s:.)*quantize the float checkpoint again"):
        checkpoints.load(broken)


def test_scales_move_first_and_are_fixed_then(student, calibrated, small_digits, tmp_path):
    fixed = QuantizeSettings(epochs=1, batch_size=64, freeze_after=0.0)
    kept = _quantized(student, calibrated, small_digits, fixed, _folder(tmp_path, "fixed"))
    assert _amax(kept) == _amax(calibrated)
    moving = QuantizeSettings(epochs=2, batch_size=64, freeze_after=0.5, ema=0.5)
    moved = _quantized(student, calibrated, small_digits, moving, _folder(tmp_path, "moving"))
    assert _amax(moved).keys() == _amax(calibrated).keys() and _amax(moved) != _amax(calibrated)
    assert moved.metrics["validation_accuracy"] > student.metrics["validation_accuracy"] - 0.1
    assert not torch.equal(_weights(moved), _weights(calibrated))


def test_an_interrupted_training_ends_as_one_that_was_not(student, calibrated, small_digits, tmp_path):
    """The scales are frozen in the middle of it, and that is no part of the saved state."""
    settings = QuantizeSettings(epochs=4, batch_size=64, freeze_after=0.5)

    def run(name: str, stop_at: str | None = None) -> Checkpoint:
        def progress(done: int, total: int, note: str) -> None:
            if note == stop_at:
                raise KeyboardInterrupt

        out = tmp_path / name / "artifact"
        out.mkdir(parents=True, exist_ok=True)
        return _quantized(student, calibrated, small_digits, settings, out, progress)

    whole = run("whole")
    for stop_at in ("epoch 2/4", "epoch 4/4"):
        with pytest.raises(KeyboardInterrupt):
            run("cut", stop_at)
    again = run("cut")
    assert [record["loss"] for record in again.metrics["history"]] == [r["loss"] for r in whole.metrics["history"]]
    assert _amax(again) == _amax(whole)
    assert torch.equal(_weights(again), _weights(whole))


def test_quantizers_are_trained_in_fp32(calibrated):
    network = checkpoints.load(calibrated)
    assert resolve_precision("auto", network, torch.device("cpu"), inference=True) == "fp32"
    with pytest.raises(UsageError, match="too coarse"):
        resolve_precision("bf16", network, torch.device("cpu"))


def _weights(checkpoint: Checkpoint) -> torch.Tensor:
    state = read_state(checkpoint.weights)
    return torch.cat([value.flatten() for name, value in state.items() if name.endswith("original")])
