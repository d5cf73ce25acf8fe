"""Calibration and quantization-aware distillation, on real images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.storage import labels_file
from edgekd.distillation.distill import TeacherSetup, distill
from edgekd.errors import DataError, ModelError, UsageError
from edgekd.export.numerics import real_inputs
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.quantize import calibration_of
from edgekd.models.weights import read_state
from edgekd.quantization.placement import activation_quantizers
from edgekd.recipe.settings import AugmentSettings, DistillSettings, ModelSettings, QuantizeSettings, TrainSettings
from edgekd.stages._calibrated import spread
from edgekd.stages._qad import freezing, schedule
from edgekd.stages.quantize import CALIBRATE, STAGE, calibrate, require_fresh
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


@pytest.fixture(scope="module")
def learning(student, small_digits, tmp_path_factory) -> Checkpoint:
    """The same, with scales that can be trained."""
    return calibrate(student, small_digits, 64, tmp_path_factory.mktemp("learning"), learned=True)


def _quantized(teacher, calibrated, data, settings, out, progress=None) -> Checkpoint:
    setup = TrainingSetup(settings, STILL, progress, freezing(settings))
    return distill(calibrated, TeacherSetup(teacher), OBJECTIVE, data, setup, out)


def _scales(checkpoint: Checkpoint) -> dict[str, float]:
    return {path: q.scale.item() for path, q in activation_quantizers(checkpoints.load(checkpoint)).items()}


def test_calibration_keeps_the_accuracy_and_states_what_it_did(student, calibrated):
    assert calibrated.metrics["calibration_images"] == 64
    assert calibrated.metrics["quantized_values"] == len(_scales(calibrated)) > 10
    assert sum(calibrated.metrics["calibration_methods"].values()) == calibrated.metrics["quantized_values"]
    assert calibrated.metrics["corrected_biases"] > 5
    # The id is one of the method and the network too, not only of the images.
    name = calibrated.metrics["calibration_set"][:12]
    assert CALIBRATE.facts(calibrated)[0] == f"64 training images (calibration {name})"
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
    left = list(found.metrics["left_in_float"])
    assert left and all("norm" in name for name in left)
    (warning,) = found.metrics["warnings"]
    assert warning.startswith(f"{len(left)} of the network's operations stay in float: {left[0]}")


def test_the_method_that_is_asked_for_is_used(student, calibrated, small_digits, tmp_path):
    found = calibrate(student, small_digits, 64, tmp_path, method="percentile")
    assert found.metrics["calibration_methods"] == {"percentile": found.metrics["quantized_values"]}
    assert _scales(found) != _scales(calibrated)


def test_one_image_is_too_few_to_calibrate_on(student, small_digits, tmp_path):
    with pytest.raises(DataError, match="too few images(?s:.)*calibration_images: 1(?s:.)*at least 16"):
        calibrate(student, small_digits, 1, tmp_path)
    with pytest.raises(ValueError, match="greater than or equal to 16"):
        QuantizeSettings(calibration_images=1)


def test_an_image_of_every_class_is_chosen_however_the_split_is_ordered():
    by_class, in_turn = np.repeat(np.arange(10), 64), np.tile(np.arange(10), 64)
    for labels in (by_class, in_turn, np.random.default_rng(0).permutation(by_class)):
        rows = spread(labels, 64)
        assert len(set(rows.tolist())) == 64 and np.bincount(labels[rows]).tolist() == pytest.approx([6.4] * 10, abs=1)
        assert set(labels[rows[:: -(-64 // 16)]]) == set(range(10))  # and every fourth of them
    assert spread(np.zeros((9, 3)), 3).tolist() == [0, 4, 8]
    assert spread(np.full(9, -1), 3).tolist() == [0, 4, 8]


def test_images_of_one_class_only_are_named(student, small_digits, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(small_digits.path, copied)
    labels = labels_file(copied, "train")
    np.save(labels, np.full_like(np.load(labels), 3))
    one = Dataset.seal(copied, details=small_digits.details, metrics=dict(small_digits.metrics))
    (warning,) = calibrate(student, one, 32, _folder(tmp_path, "out")).metrics["warnings"]
    assert warning.startswith(f"Int8 was calibrated on images of one class only, {one.classes[3]}")


def _with(student: Checkpoint, out, change) -> Checkpoint:
    network = checkpoints.load(student)
    with torch.no_grad():
        change(network)
    details = student.details
    return checkpoints.save(
        network, details.architecture, preprocessing=details.preprocessing, classes=details.classes, out=out
    )


def test_a_network_whose_output_does_not_move_is_named(student, small_digits, tmp_path):
    still = _with(student, _folder(tmp_path, "still"), lambda network: list(network.parameters())[-2].zero_())
    warnings = calibrate(still, small_digits, 32, _folder(tmp_path, "out")).metrics["warnings"]
    assert warnings[0].startswith("The network gives the same output for every calibration image")


def test_activations_that_are_not_finite_are_refused_by_name(student, small_digits, tmp_path):
    huge = _with(student, _folder(tmp_path, "huge"), lambda network: next(network.parameters()).fill_(3e38))
    with pytest.raises(ModelError, match="int8 cannot be calibrated: .* is (nan|inf|-inf) on a calibration image"):
        calibrate(huge, small_digits, 32, _folder(tmp_path, "out"))


def test_a_calibration_is_named_by_its_images_its_network_and_its_method(student, calibrated, small_digits, tmp_path):
    def name(place: str, network: Checkpoint, images: int = 64, method: str = "auto") -> str:
        made = calibrate(network, small_digits, images, _folder(tmp_path, place), method=method)
        record = calibration_of(made.details.architecture)
        assert record is not None and record.name == made.metrics["calibration_set"]
        return record.name

    nudged = _with(
        student, _folder(tmp_path, "other"), lambda network: next(network.parameters())[0, 0, 0, 0].mul_(1.01)
    )
    first = calibrated.metrics["calibration_set"]
    assert name("again", student) == first
    others = [name("images", student, 63), name("method", student, method="mse"), name("network", nudged)]
    assert len({first, *others}) == 4


def test_a_calibration_of_another_network_is_stale(student, calibrated, tmp_path):
    require_fresh(calibrated, student)
    other = _with(
        student, _folder(tmp_path, "other"), lambda network: next(network.parameters())[0, 0, 0, 0].mul_(1.01)
    )
    with pytest.raises(ModelError, match=r"is stale: it was made for another network(?s:.)*edgekd quantize"):
        require_fresh(calibrated, other)
    with pytest.raises(ModelError, match="does not state what it was calibrated on"):
        require_fresh(student, student)


def test_scales_of_another_graph_are_refused_when_they_are_loaded(calibrated, tmp_path):
    architecture = calibrated.details.architecture
    edit = architecture.edits[-1]
    foreign = {**edit, "calibration": {**edit["calibration"], "graph": "0" * 64}}
    details = calibrated.details.model_copy(
        update={"architecture": architecture.model_copy(update={"edits": (*architecture.edits[:-1], foreign)})}
    )
    shutil.copy(calibrated.weights, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"is stale: its network has another graph(?s:.)*graph 0000"):
        checkpoints.load(Checkpoint.seal(tmp_path, details=details, metrics=dict(calibrated.metrics)))


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


def test_nothing_of_a_batch_enters_what_is_trained(calibrated, small_digits):
    """Norms are folded before: in training mode too an image's answer does not depend on the others of its batch."""
    network = checkpoints.load(calibrated)
    assert not [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    freezing(QuantizeSettings())(network.train(), 0)
    before = {name: value.clone() for name, value in network.named_buffers()}
    images = torch.from_numpy(real_inputs(small_digits, 16))
    together = network(images)
    torch.testing.assert_close(
        together[:3], network(images[:3]), rtol=0, atol=1e-3 * float(together.detach().abs().max())
    )
    torch.testing.assert_close(together, network.eval()(images))
    assert before and all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_calibrated_scales_stay(student, calibrated, small_digits, tmp_path):
    settings = QuantizeSettings(epochs=2, batch_size=64, learning_rate=0.01, freeze_after=1.0)
    notes = {"schedule": schedule(settings, DistillSettings(epochs=20), 100)}
    setup = TrainingSetup(settings, STILL, None, freezing(settings), notes)
    kept = distill(calibrated, TeacherSetup(student), OBJECTIVE, small_digits, setup, tmp_path)
    assert "2 epochs (a tenth of distill's 20)" in STAGE.facts(kept)
    assert len(STAGE.facts(calibrated)) == 2  # with mode: ptq it is what ships
    assert _scales(kept) == _scales(calibrated) and not torch.equal(_weights(kept), _weights(calibrated))


@pytest.mark.parametrize("scales", ["observed", "learned"])
def test_scales_move_first_and_are_fixed_then(student, calibrated, learning, scales, small_digits, tmp_path):
    begin = learning if scales == "learned" else calibrated
    assert _scales(begin) == _scales(calibrated) and begin.metrics["parameters"] == calibrated.metrics["parameters"]
    seen: list[dict[str, float]] = []

    def trained(name: str, **settings: object) -> Checkpoint:
        chosen = QuantizeSettings(scales=scales, batch_size=64, learning_rate=0.01, **settings)
        freeze = freezing(chosen)

        def begin_epoch(network: nn.Module, epoch: int) -> None:
            seen.append({path: each.scale.item() for path, each in activation_quantizers(network).items()})
            freeze(network, epoch)

        setup = TrainingSetup(chosen, STILL, None, begin_epoch)
        return distill(begin, TeacherSetup(student), OBJECTIVE, small_digits, setup, _folder(tmp_path, name))

    moved = trained("plain", epochs=3, freeze_after=0.3)
    assert seen[0] == _scales(calibrated) != seen[1]
    assert seen[1] == seen[2] == _scales(moved)
    assert moved.metrics["validation_accuracy"] > student.metrics["validation_accuracy"] - 0.1
    assert not torch.equal(_weights(moved), _weights(calibrated))
    averaged = trained("averaged", epochs=3, freeze_after=0.3, ema=0.9)
    assert (_scales(averaged) != _scales(moved)) == (scales == "learned")


@pytest.mark.parametrize("scales", ["observed", "learned"])
def test_an_interrupted_training_ends_as_one_that_was_not(
    student, calibrated, learning, scales, small_digits, tmp_path
):
    """The scales are frozen in the middle of it, and that is no part of the saved state."""
    settings = QuantizeSettings(scales=scales, epochs=4, batch_size=64, freeze_after=0.5)
    begin = learning if scales == "learned" else calibrated

    def run(name: str, stop_at: str | None = None) -> Checkpoint:
        def progress(done: int, total: int, note: str) -> None:
            if note == stop_at:
                raise KeyboardInterrupt

        out = tmp_path / name / "artifact"
        out.mkdir(parents=True, exist_ok=True)
        return _quantized(student, begin, small_digits, settings, out, progress)

    whole = run("whole")
    for stop_at in ("epoch 2/4", "epoch 4/4"):
        with pytest.raises(KeyboardInterrupt):
            run("cut", stop_at)
    again = run("cut")
    assert [record["loss"] for record in again.metrics["history"]] == [r["loss"] for r in whole.metrics["history"]]
    assert _scales(again) == _scales(whole)
    assert torch.equal(_weights(again), _weights(whole))


def test_quantizers_are_trained_in_fp32(calibrated):
    network = checkpoints.load(calibrated)
    assert resolve_precision("auto", network, torch.device("cpu"), inference=True) == "fp32"
    with pytest.raises(UsageError, match="too coarse"):
        resolve_precision("bf16", network, torch.device("cpu"))


def _weights(checkpoint: Checkpoint) -> torch.Tensor:
    state = read_state(checkpoint.weights)
    return torch.cat([value.flatten() for name, value in state.items() if name.endswith("original")])
