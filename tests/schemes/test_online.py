"""Deep mutual learning: students that teach each other."""

from __future__ import annotations

from dataclasses import replace

import chains
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd import schemes
from edgekd.data.dataset import Dataset, DatasetDetails
from edgekd.data.loader import Batch
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import RecipeError, UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import NewClassifier
from edgekd.models.weights import save_state
from edgekd.runtime.preprocess import Preprocessing
from edgekd.schemes.online import OBJECTIVE, Cohort, Mutual, Parameters, check_networks
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store

SMALL = ("data.limit=64", "data.image_size=8", "distill.batch_size=32", "distill.epochs=2", "distill.scheme=online")
THREE = "distill.scheme={name: online, peers: [{model: cifar/resnet8}, {model: cifar/resnet14}]}"
TWINS = "distill.scheme={name: online, peers: [{model: cifar/resnet8}, {model: cifar/resnet8}]}"
# Few images, where a second opinion helps most.
FEW = ("data.limit=100", "data.validation=0.1", "distill.epochs=30", "distill.batch_size=25")
BATCH = Batch(
    torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]), torch.arange(4)
)


def mutual(count: int) -> tuple[Cohort, Mutual]:
    cohort = Cohort([nn.Linear(6, 3) for _ in range(count)]).train()
    return cohort, Mutual(build_terms(OBJECTIVE, Networks(cohort, None, 8, 4, 10)))


def test_each_student_learns_the_labels_and_the_mean_of_the_others():
    cohort, objective = mutual(3)
    losses = objective(cohort, BATCH)
    first, own, third = (network(BATCH.images) for network in cohort.networks)
    others = [F.kl_div(own.log_softmax(1), other.softmax(1), reduction="batchmean") for other in (first, third)]
    torch.testing.assert_close(losses["student2.kd"], (others[0] + others[1]) / 2)
    torch.testing.assert_close(losses["student2.cross_entropy"], F.cross_entropy(own, BATCH.targets))
    assert len(losses) == 6


def test_no_student_gets_gradients_from_the_losses_of_others():
    cohort, objective = mutual(2)
    objective(cohort, BATCH)["student.kd"].backward()
    assert cohort.networks[0].weight.grad.abs().sum() > 0
    assert cohort.networks[1].weight.grad is None


def test_in_eval_mode_the_output_is_the_first_students_and_all_run():
    cohort, _ = mutual(2)
    seen = []
    cohort.networks[1].register_forward_pre_hook(lambda *_: seen.append(1))
    assert torch.equal(cohort.eval()(BATCH.images), cohort.networks[0](BATCH.images))
    assert seen == [1]


def test_every_student_becomes_a_checkpoint_and_an_equal_run_reuses_all(stages, distilled):
    made = distilled(stages(*SMALL, THREE, teacher=None))
    students = {"student": made.student, **made.others}
    assert list(students) == ["student", "student2", "student3"]
    architectures = [student.details.architecture.model for student in students.values()]
    assert architectures == ["cifar/resnet8", "cifar/resnet8", "cifar/resnet14"]
    assert len({student.digest for student in students.values()}) == 3
    for student in students.values():
        history = student.metrics["history"]
        assert [set(epoch["terms"]) for epoch in history] == [{"kd", "cross_entropy"}] * 2
        assert history[-1]["validation_accuracy"] == student.metrics["validation_accuracy"]
        assert student.metrics["throughput"]["precision"] == "fp32" and "bf16" in student.metrics
    again = stages(*SMALL, THREE, teacher=None)
    assert distilled(again).student.digest == made.student.digest
    assert {done.state for done in again.store.log} == {"reused"}


def test_the_first_student_begins_as_it_does_alone(stages, distilled):
    """One step of rate nought changes nothing but running statistics."""
    chain = stages(*SMALL, "distill.epochs=1", "distill.learning_rate=1e-30", "distill.weight_decay=0", teacher=None)
    made, alone = distilled(chain), train_stage.baseline(chain, data_stage.data(chain))
    weights = [checkpoints.load(c).state_dict()["conv1.weight"] for c in (made.student, alone, *made.others.values())]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_interrupted_training_resumes_to_the_same_bits(stages, distilled, kill_at, tmp_path):
    chain = stages(*SMALL, teacher=None)
    whole = distilled(chain)
    with pytest.raises(kill_at.Killed):
        distilled(replace(chain, store=Store(tmp_path), console=kill_at(3)))
    resumed = distilled(replace(chain, store=Store(tmp_path)))
    assert resumed.student.digest == whole.student.digest
    assert resumed.others["student2"].digest == whole.others["student2"].digest


def test_a_plan_names_every_student_and_writes_nothing(stages, tmp_path):
    chain = stages(*SMALL, THREE, teacher=None)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    schemes.distill(plan, None, data_stage.data(plan))
    assert [stage.name for stage in plan.store.stages] == ["data", "distill", "student", "student2", "student3"]
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.scheme={name: online, peers: []}", "peers"),
        ("distill.scheme={name: online, peer: []}", "did you mean 'peers'?"),
        ("distill.scheme={name: online, peers: [{model: cifar/resnet10}]}", "'resnet10'"),
        ("distill.objective=[{method: cross_entropy}]", "online needs a loss that compares outputs"),
        ("distill.objective=[{method: kd}, {method: fitnets}]", "online takes losses on logits only"),
        ("student.checkpoint=there.safetensors", "start from the same weights"),
    ],
)
def test_mistakes_are_reported_once(stages, override, message):
    with pytest.raises(RecipeError, match="1 mistake") as raised:
        stages(*SMALL, override, teacher=None)
    assert message in str(raised.value)


@pytest.mark.slow
def test_students_that_learn_from_each_other_beat_each_alone(stages, distilled, score):
    """All three, in the mean over three seeds, on 100 images."""
    together, alone = [], []
    for seed in range(3):
        chain = stages(*FEW, TWINS, f"distill.seed={seed}", teacher=None)
        made, data = distilled(chain), data_stage.data(chain)
        together.append([score(student, data) for student in (made.student, *made.others.values())])
        alone.append(score(train_stage.baseline(chain, data), data))
    assert min(sum(scores) for scores in zip(*together, strict=True)) > sum(alone)


def test_int8_continues_learning_what_the_students_learned(stages):
    later = {"epochs": 1, "batch_size": 32, "calibration_images": 16}
    chain = stages(*SMALL, teacher=None, quantize=later)
    chains.networks(chain)
    by = {done.name: done.artifact for done in chain.store.log}
    assert by["quantize"].manifest.stage.settings["objective"] == objective_json(OBJECTIVE)


def test_a_students_new_classifier_is_reported(stages, distilled, tmp_path):
    save_state(checkpoints.build(Architecture(model="cifar/resnet8", num_classes=7)), tmp_path / "seven.safetensors")
    peer = f"{{model: cifar/resnet8, checkpoint: {tmp_path / 'seven.safetensors'}}}"
    made = distilled(stages(*SMALL, f"distill.scheme={{name: online, peers: [{peer}]}}", teacher=None))
    second = made.others["student2"]
    assert second.metrics["warnings"] == ["The classifier (linear) was newly initialised: its 7 classes became 10."]
    assert second.details.training.new_classifier == NewClassifier(layer="linear", classes_before=7)
    assert made.student.metrics["warnings"] == []


@pytest.mark.parametrize(("classes", "refused"), [(1000, True), (10, False)])
def test_two_students_with_the_same_published_weights_are_refused(stages, tmp_path, classes, refused):
    """With another number of classes each begins with a last layer of its own."""
    published = {"model": "torchvision/mobilenet_v3_small", "pretrained": True}
    recipe = stages(*SMALL, teacher=None, student=published).recipe
    details = DatasetDetails(
        source="digits",
        classes=tuple(str(number) for number in range(classes)),
        preprocessing=Preprocessing((16, 16), (16, 16)),
        mirror=False,
        storage="cached",
        counts={},
    )
    data = Dataset.seal(tmp_path, details=details)
    if not refused:
        check_networks(recipe, Parameters(), None, data)
        return
    with pytest.raises(UsageError, match="would remain identical"):
        check_networks(recipe, Parameters(), None, data)
