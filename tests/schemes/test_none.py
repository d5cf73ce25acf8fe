"""A trained model is compressed as it is: nothing before pruning and quantization is trained."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from edgekd import pipeline
from edgekd.errors import ModelError, RecipeError
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.load import from_mapping
from edgekd.runtime import load
from edgekd.store.artifacts import read_json


@pytest.fixture
def weights(stages, distilled, tmp_path):
    """A trained network as somebody brings it: a file of torch.save, with a prefix."""
    network = checkpoints.load(distilled(stages(MODEL)).student)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


MODEL = "student.model=timm/test_efficientnet"


def mapping(weights, **sections):
    return {
        "name": "given",
        "data": {"source": "digits", "image_size": 16, "validation": 0.15, "test": 0.25, "augment": {"flip": False}},
        "student": {"model": "timm/test_efficientnet", "checkpoint": str(weights)},
        "distill": {"scheme": "none"},
        "bench": {"seconds": 0.02, "warmup_seconds": 0.0, "batch_sizes": [1]},
        **sections,
    }


def test_a_given_model_is_pruned_quantized_and_exported_in_one_run(weights, stages, distilled, tmp_path):
    steps = {"epochs": 2, "batch_size": 64, "learning_rate": 0.02, "precision": "fp32"}
    recipe = from_mapping(
        mapping(
            weights,
            prune={"target": {"macs": 0.7}, **steps},
            quantize={"mode": "ptq", "calibration_images": 64},
            export={"variants": ["fp32", "int8"], "tolerance": {"int8": {"difference": 2.0, "agreement": 0.5}}},
        )
    )
    planned = [stage.name for stage in pipeline.plan(recipe, tmp_path / "run")]
    assert not {"teacher", "baseline"} & set(planned) and "distill" in planned
    result = pipeline.run(recipe, tmp_path / "run")
    given = result.made.networks[next(role for role in result.made.roles if role.name == "student")]
    before = distilled(stages(MODEL)).student
    own, trained = (checkpoints.load(each).state_dict() for each in (given, before))
    assert all(torch.equal(own[name], trained[name]) for name in trained)
    assert given.metrics["validation_accuracy"] == before.metrics["validation_accuracy"]
    assert "history" not in given.metrics
    # What is pruned learns from the answers of the student before.
    assert result.made.pruned.recovered.details.training.teacher == given.digest
    report = read_json(tmp_path / "run" / "report.json")
    titles = {model["id"]: model["title"] for model in report["models"]}
    assert titles["student-fp32"] == "Student, as given"
    assert load(result.bundle).verify().images and load(result.bundle, variant="int8").verify().images


def test_calibration_alone_needs_neither_teacher_nor_training(weights, tmp_path):
    recipe = from_mapping(mapping(weights, quantize={"mode": "ptq", "calibration_images": 256}))
    given = pipeline.run_until("distill", recipe, tmp_path / "run")
    made = pipeline.run_until("quantize", recipe, tmp_path / "run")
    assert made.metrics["validation_accuracy"] > given.metrics["validation_accuracy"] - 0.1
    assert not list((tmp_path / "run" / "stages").glob("baseline-*"))


def test_a_teacher_may_be_there_for_the_recovery(weights, tmp_path):
    teacher = {"model": "cifar/resnet14", "train": {"epochs": 1}}
    planned = pipeline.plan(from_mapping(mapping(weights, teacher=teacher, prune={})), tmp_path)
    assert [stage.name for stage in planned][2] == "teacher"


def test_without_weights_there_is_nothing_to_take(tmp_path):
    with pytest.raises(RecipeError, match=r"distill.scheme: none takes a trained student(?s:.)*student.checkpoint"):
        from_mapping({**mapping("w.pth"), "student": {"model": "timm/test_efficientnet"}})


def test_weights_for_other_classes_are_refused_because_nothing_would_train_a_new_layer(tmp_path):
    from edgekd.models.architecture import Architecture
    from edgekd.models.build import build

    save_file(
        build(Architecture(model="timm/test_efficientnet", num_classes=7)).state_dict(), tmp_path / "w.safetensors"
    )
    with pytest.raises(ModelError, match=r"another number of classes(?s:.)*found: 7 classes"):
        pipeline.run_until("distill", from_mapping(mapping(tmp_path / "w.safetensors")), tmp_path / "run")
