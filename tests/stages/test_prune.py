"""A pruned checkpoint rebuilds from its folder, and what it was made from stays as it was."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.pruning.checkpoint import prune_checkpoint
from edgekd.pruning.request import Request, check
from edgekd.recipe.settings import PruneTarget
from edgekd.runtime.preprocess import InputShape, Preprocessing


def _student(folder, model="torchvision/mobilenet_v2", **arguments) -> Checkpoint:
    folder.mkdir()
    architecture = Architecture(model=model, arguments=arguments, num_classes=3, small_stem=True)
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


def test_what_would_fail_later_fails_before_anything_is_trained(tmp_path):
    network = build(Architecture(model="torchvision/mobilenet_v3_small", num_classes=3, small_stem=True))
    check(Request(PruneTarget(macs=0.5), 8), network, InputShape(3, 32, 32))
    with pytest.raises(ModelError, match="out of reach"):
        check(Request(PruneTarget(parameters=0.001), 8), network, InputShape(3, 32, 32))
