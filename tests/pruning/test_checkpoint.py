"""A pruned checkpoint rebuilds from its folder, and what it was made from stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.pruning.checkpoint import Step, prune_checkpoint
from edgekd.pruning.request import Request
from edgekd.recipe.settings import PruneTarget
from edgekd.runtime.preprocess import Preprocessing


def _student(folder, model="torchvision/mobilenet_v2", **arguments) -> Checkpoint:
    folder.mkdir()
    architecture = Architecture(
        model=model, arguments=arguments, num_classes=3, small_stem=not model.startswith("cifar/")
    )
    torch.manual_seed(0)
    return checkpoints.save(
        build(architecture).eval(),
        architecture,
        preprocessing=Preprocessing((32, 32), (32, 32)),
        classes=("a", "b", "c"),
        out=folder,
        training=TrainingNotes(epochs=7),
    )


def test_a_pruned_checkpoint_states_what_was_pruned_and_rebuilds_without_gradients(tmp_path):
    student = _student(tmp_path / "student", width_mult=0.35)
    (tmp_path / "pruned").mkdir()
    pruned = prune_checkpoint(student, Request(PruneTarget(macs=0.5), 8), tmp_path / "pruned")
    with torch.no_grad():
        network = checkpoints.load(Checkpoint.load(pruned.path))
    for width in pruned.metrics["widths"]:
        layer = network.get_submodule(width["layer"])
        assert layer.weight.shape[0] == width["after"] <= width["before"]
    assert pruned.metrics["kept"] == pytest.approx(pruned.metrics["macs"] / student.metrics["macs"], abs=1e-6)
    assert pruned.metrics["before"] == {key: student.metrics[key] for key in ("macs", "parameters")}
    assert pruned.classes == student.classes and pruned.details.training == TrainingNotes(epochs=7)
    assert Checkpoint.load(student.path).digest == student.digest


@pytest.mark.parametrize(
    ("importance", "shares"),
    [("taylor", "uniform"), ("magnitude", "global"), ("batch-norm", "uniform"), ("taylor", "sensitivity")],
)
def test_every_rule_prunes_a_trained_network(importance, shares, exported, small_digits, tmp_path):
    student, _ = exported
    network = checkpoints.load(student)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    (tmp_path / "student").mkdir(), (tmp_path / "pruned").mkdir()
    varied = checkpoints.save(
        network,
        student.details.architecture,
        preprocessing=student.details.preprocessing,
        classes=student.classes,
        out=tmp_path / "student",
    )
    request = Request(PruneTarget(macs=0.6), 4, importance=importance, shares=shares)
    notes: list[str] = []
    pruned = prune_checkpoint(
        varied, request, tmp_path / "pruned", data=small_digits, shown=lambda note: notes.append(note)
    )
    assert 0.3 < pruned.metrics["kept"] <= 0.6
    assert pruned.metrics["macs"] == pytest.approx(pruned.metrics["kept"] * student.metrics["macs"], rel=1e-4)
    curves = pruned.metrics["sensitivity"]
    assert bool(curves) == (shares == "sensitivity") == ("cutting each part alone" in notes)
    for curve in curves:
        assert len(curve["errors"]) == len(curve["lost"]) == len(curve["shares"]) == 3


def test_the_second_of_two_steps_states_what_both_removed(tmp_path):
    student = _student(tmp_path / "student", width_mult=0.35)
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    request = Request(PruneTarget(macs=0.5), 4)
    one = prune_checkpoint(student, request, tmp_path / "one", step=Step(student, left=2))
    assert 0.6 < one.metrics["kept"] <= 0.5**0.5
    two = prune_checkpoint(one, request, tmp_path / "two", step=Step(student, one.metrics["kept"], left=1))
    assert 0.4 < two.metrics["kept"] <= 0.5
    assert two.metrics["kept"] == pytest.approx(two.metrics["macs"] / student.metrics["macs"], abs=1e-5)
    assert two.metrics["before"] == one.metrics["before"]
    first = {width["layer"]: width["before"] for width in two.metrics["widths"]}
    assert first == {width["layer"]: width["before"] for width in one.metrics["widths"]}


def test_a_measured_latency_is_in_the_manifest(tmp_path):
    student = _student(tmp_path / "student", "cifar/resnet8x2")
    (tmp_path / "pruned").mkdir()
    pruned = prune_checkpoint(student, Request(PruneTarget(latency=0.9), 64, threads=1), tmp_path / "pruned")
    latency = pruned.metrics["latency"]
    assert latency["device"] == "this-machine" and latency["backend"] == "onnxruntime"
    assert latency["ratios"][1] == pytest.approx(pruned.metrics["kept"], abs=1e-5) and pruned.metrics["kept"] < 0.95


@pytest.mark.slow
def test_after_a_second_step_the_latency_is_measured_against_the_first_network(tmp_path):
    student = _student(tmp_path / "student", "cifar/resnet8x2")
    (tmp_path / "pruned").mkdir()
    pruned = prune_checkpoint(student, Request(PruneTarget(latency=0.9), 64, threads=1), tmp_path / "pruned")
    (tmp_path / "again").mkdir()
    step = Step(student, pruned.metrics["kept"], left=1)
    request = Request(PruneTarget(latency=0.7), 32, threads=1)
    again = prune_checkpoint(pruned, request, tmp_path / "again", step=step).metrics
    # Measured against the first network.
    assert again["kept"] == pytest.approx(again["latency"]["ratios"][1], abs=1e-5) and again["kept"] < 0.9
    assert again["latency"]["milliseconds"][1] < again["latency"]["milliseconds"][0]


@pytest.mark.parametrize("rules", [{"importance": "taylor"}, {"shares": "sensitivity"}])
def test_rules_that_ask_images_are_refused_without_any(rules, tmp_path):
    student = _student(tmp_path / "student", "cifar/resnet8")
    with pytest.raises(UsageError, match="ask images, and there are none"):
        prune_checkpoint(student, Request(PruneTarget(macs=0.5), 8, **rules), tmp_path)
