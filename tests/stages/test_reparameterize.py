"""A re-parameterizable student keeps its branches in training, and loses them before all that follows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgekd.data.dataset import Dataset
from edgekd.errors import ModelError
from edgekd.export.numerics import real_inputs
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.pruning.checkpoint import prune_checkpoint
from edgekd.pruning.request import Request
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import ExportSettings, PruneTarget
from edgekd.runs import Run, Stage
from edgekd.runtime.backends import open_reference
from edgekd.stages.distill import Distilled
from edgekd.stages.quantize import calibrate
from edgekd.stages.reparameterize import STAGE, as_compressed, fold_checkpoint, reparameterize, reparameterize_compared
from edgekd.store.plan import Outline, Plan
from edgekd.store.store import Store

MODEL = "timm/mobileone_s0"
RECIPE = {
    "name": "x",
    "data": {"source": "digits"},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
    "student": {"model": MODEL},
}


def _saved(data: Dataset, folder, model: str = MODEL) -> Checkpoint:
    folder.mkdir()
    torch.manual_seed(0)
    architecture = Architecture(model=model, num_classes=10)
    network = build(architecture)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    network.train()(torch.from_numpy(real_inputs(data, 64)))
    return checkpoints.save(
        network,
        architecture,
        preprocessing=data.details.preprocessing,
        classes=data.classes,
        out=folder,
        training=TrainingNotes(epochs=3),
        metrics={"validation_accuracy": 0.5, "warnings": ["as before"]},
    )


@pytest.fixture(scope="module")
def branched(small_digits, tmp_path_factory) -> Checkpoint:
    return _saved(small_digits, tmp_path_factory.mktemp("branched") / "student")


def _run(store, **sections) -> Run:
    return Run(from_mapping({**RECIPE, **sections}).settings, store)


def _answers(model) -> np.ndarray:
    with open_reference(model.graph, as_written=False) as session:
        return session.bind(INPUTS.numpy())()


def _pending(run: Run, kind):
    return run.stage(Stage("distill", "", version=1), kind, settings={}, inputs={}, make=kind)


INPUTS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_exported_student_is_the_folded_one_and_answers_as_the_branched_one(branched, small_digits, tmp_path):
    run = _run(Store(tmp_path / "run"))
    student = reparameterize(run, Distilled(branched), small_digits).student
    (done,) = run.store.log
    assert (done.name, done.title) == ("reparameterize", "Branches folded")
    assert done.facts[0] == "191 → 43 convolutions, 226 → 0 norms" and student.metrics["folded"]["difference"] < 1e-9
    for key in ("macs", "parameters"):
        assert student.metrics[key] < 0.7 * branched.metrics[key]
    assert student.details.training == TrainingNotes(epochs=3) and student.metrics["warnings"] == ["as before"]
    expected = checkpoints.load(branched)(INPUTS).numpy()
    (tmp_path / "fp32").mkdir()
    exported = find("fp32").export(Checkpoint.load(student.path), small_digits, ExportSettings(), tmp_path / "fp32")
    assert sum(node.op_type == "Conv" for node in onnx.load(exported.graph).graph.node) == 43
    assert np.abs(_answers(exported) - expected).max() < 1e-4 * np.abs(expected).max()


def test_it_prunes_and_quantizes_behind_that(branched, small_digits, tmp_path):
    for name in ("folded", "pruned", "calibrated"):
        (tmp_path / name).mkdir()
    images = torch.from_numpy(real_inputs(small_digits, 4))
    folded = fold_checkpoint(branched, images, tmp_path / "folded")
    pruned = prune_checkpoint(folded, Request(PruneTarget(macs=0.5), 8), tmp_path / "pruned")
    assert pruned.metrics["macs"] <= 0.5 * folded.metrics["macs"]
    calibrated = calibrate(pruned, small_digits, 32, tmp_path / "calibrated")
    assert [edit["edit"] for edit in calibrated.details.architecture.edits] == ["reparameterize", "prune", "quantize"]
    assert not calibrated.metrics["left_in_float"]


def test_a_network_without_branches_passes(small_digits, tmp_path):
    plain = _saved(small_digits, tmp_path / "plain", "cifar/resnet8")
    run = _run(Store(tmp_path / "run"))
    assert reparameterize(run, Distilled(plain), small_digits).student is plain
    assert reparameterize_compared(run, plain, None, small_digits) == (plain, None) and not run.store.log


def test_what_is_only_compared_is_folded_too(branched, small_digits, tmp_path):
    run = _run(Store(tmp_path / "run"))
    made = reparameterize(run, Distilled(branched, {"student2": branched}), small_digits)
    teacher, baseline = reparameterize_compared(run, branched, branched, small_digits)
    assert [done.name for done in run.store.log] == [
        *("reparameterize", "reparameterize-student2", "reparameterize-teacher", "reparameterize-baseline")
    ]
    folded = (made.student, made.others["student2"], teacher, baseline)
    assert len({each.metrics["macs"] for each in folded}) == 1 and teacher.metrics["macs"] < branched.metrics["macs"]


def test_branches_that_cannot_be_folded_are_kept_with_a_warning(branched, small_digits, tmp_path, monkeypatch):
    from timm.models.byobnet import MobileOneBlock

    monkeypatch.setattr(MobileOneBlock, "reparameterize", lambda self: 1 / 0)
    images = torch.from_numpy(real_inputs(small_digits, 4))
    (tmp_path / "kept").mkdir()
    kept = fold_checkpoint(branched, images, tmp_path / "kept")
    first, warning = kept.metrics["warnings"]
    assert first == "as before" and STAGE.facts(kept) == ["kept: see the warning"]
    assert warning.startswith("The branches of timm/mobileone_s0 were kept: ") and "ZeroDivisionError" in warning
    assert kept.details.architecture == branched.details.architecture
    assert torch.equal(checkpoints.load(kept)(INPUTS), checkpoints.load(branched)(INPUTS))


def test_a_plan_knows_it_beforehand(small_digits, tmp_path):
    for student, planned in ((MODEL, ["distill", "reparameterize"]), ("cifar/resnet8", ["distill"])):
        store = Plan(tmp_path)
        run = _run(store, student={"model": student})
        reparameterize(run, Distilled(_pending(run, Checkpoint)), small_digits)
        assert [stage.name for stage in store.stages] == planned


def test_before_the_data_is_known_nothing_is_built():
    run = _run(Outline())
    pending = run.stage(STAGE, Checkpoint, settings={}, inputs={}, make=Checkpoint)
    assert (
        reparameterize(run, Distilled(pending), run.stage(STAGE, Dataset, settings={}, inputs={}, make=1)).student
        is pending
    )


def test_checks_see_the_folded_student(monkeypatch):
    from timm.models.byobnet import MobileOneBlock

    student = build(Architecture(model=MODEL, num_classes=10))
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in as_compressed(student).modules())
    plain = build(Architecture(model="cifar/resnet8", num_classes=10))
    assert as_compressed(plain) is plain

    def fails(self):
        raise ModelError("no")

    monkeypatch.setattr(MobileOneBlock, "reparameterize", fails)
    assert as_compressed(student) is student
