"""A student for each group of classes, and the network that they make together."""

from __future__ import annotations

from dataclasses import replace

import chains
import numpy as np
import pytest
import torch
from torch import nn

from edgekd import schemes
from edgekd.data.loader import Batch
from edgekd.distillation.objective import Teacher
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import ModelError, RecipeError, UsageError
from edgekd.export.onnx import graph_of
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.experts import Experts, apply
from edgekd.pruning.checkpoint import prune_checkpoint
from edgekd.pruning.request import Request
from edgekd.quantization.placement import insert
from edgekd.recipe.settings import PruneTarget, SchemeSettings, TermSettings
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.preprocess import InputShape
from edgekd.schemes.task_conditioned import Conditional, groups_of
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.training.train import evaluation_loader

ODD_EVEN = "[['1', '3', '5', '7', '9'], ['0', '2', '4', '6', '8']]"
SMALL = ("data.limit=200", "teacher.train.epochs=1", "distill.epochs=2")
SCHEME = f"distill.scheme={{name: task-conditioned, groups: {ODD_EVEN}}}"


class Constant(nn.Module):
    """Gives every image the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_classes_are_split_evenly_in_their_order_or_as_named():
    assert groups_of("abcde", 2) == [["a", "b"], ["c", "d", "e"]]
    assert groups_of("abc", (("c",), ("a", "b"))) == [["c"], ["a", "b"]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (4, "more than classes"),
        ((("a",), ("b",)), "in no group: c"),
        ((("a", "b"), ("c", "d")), "not a class of the data: d"),
        ((("a", "b"), ("b", "c")), "more than once: b"),
        ((("a", "b", "c"),), "two or more"),
    ],
)
def test_every_class_is_in_one_group(groups, message):
    with pytest.raises(UsageError, match=message):
        groups_of("abc", groups)


def test_an_expert_regresses_its_part_of_the_teachers_logits():
    student = Constant(1.0, 2.0)
    terms = build_terms([TermSettings(method="mse")], Networks(student, None, 8, 4, 10))
    teacher = Teacher(Constant(5.0, 4.0, 3.0), torch.device("cpu"), "fp32")
    objective = Conditional(teacher, terms, torch.tensor([2, 0]))
    batch = Batch(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert objective(student, batch)["mse"].item() == pytest.approx((1 - 3) ** 2 + (2 - 5) ** 2)


def test_experts_follow_the_order_of_the_classes():
    together = Experts([Constant(1.0, 3.0), Constant(0.0, 2.0)], [2, 0, 3, 1])
    assert together(torch.zeros(2, 3, 8, 8)).tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2


def test_experts_that_share_a_class_are_refused():
    expert = {"model": "cifar/resnet8", "num_classes": 2}
    with pytest.raises(ModelError, match="each class once"):
        apply(nn.Identity(), {"edit": "experts", "experts": [expert, expert], "order": [0, 1, 1, 2]})


def test_experts_become_one_network_that_can_be_exported_and_quantized(stages, distilled, tmp_path):
    chain = stages(*SMALL, SCHEME)
    made, data = distilled(chain), data_stage.data(chain)
    single = made.others["single"]
    assert [term.method for term in made.objective] == ["mse"]
    assert made.student.classes == data.classes
    assert made.student.metrics["macs"] == pytest.approx(2 * single.metrics["macs"], rel=1e-3)
    by = {done.name: done.artifact for done in chain.store.log}
    assert by["expert1"].metrics.keys() >= {"history", "warnings", "throughput", "teacher_precision"}
    assert made.student.metrics.keys() >= {"bf16", "warnings", "validation_accuracy"}
    assert [by[name].classes for name in ("expert1", "expert2")] == [tuple("13579"), tuple("02468")]
    _exports(checkpoints.load(made.student), tmp_path)
    assert insert(checkpoints.load(made.student)).left_in_float == {}
    pruned = _pruned(made.student, tmp_path / "pruned")
    assert pruned.metrics["macs"] < 0.5 * made.student.metrics["macs"] and not pruned.metrics["whole"]
    _exports(checkpoints.load(Checkpoint.load(pruned.path)), tmp_path)
    again = stages(*SMALL, SCHEME)
    distilled(again)
    assert {done.state for done in again.store.log} == {"reused"}


def _pruned(student, folder):
    folder.mkdir()
    return prune_checkpoint(student, Request(PruneTarget(macs=0.5), 4), folder)


def _on_its_own(expert, data):
    """Accuracy on the test images of the classes that it knows."""
    batches = list(evaluation_loader(data, "test").epoch(0))
    with torch.no_grad():
        predicted = torch.cat([checkpoints.load(expert)(batch.images).argmax(1) for batch in batches])
    labels = torch.cat([batch.targets for batch in batches])
    columns = torch.tensor([data.classes.index(name) for name in expert.classes])
    known = torch.isin(labels, columns)
    return (columns[predicted] == labels)[known].double().mean().item()


def _exports(network, folder):
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    file = folder / "model.onnx"
    file.write_bytes(graph_of(network, InputShape(3, 16, 16), 17).SerializeToString())
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.allclose(OrtSession(file).bind(images)(), expected, atol=1e-3)


@pytest.mark.slow
def test_over_three_seeds_they_are_better_than_one_student(stages, distilled, score):
    """All together, and each expert on the images of its own classes."""
    runs = [stages(SCHEME, f"distill.seed={seed}") for seed in range(3)]
    made, data = [distilled(run) for run in runs], data_stage.data(stages())
    by = {done.name: done.artifact for done in runs[0].store.log}
    assert min(_on_its_own(by[name], data) for name in ("expert1", "expert2")) > 0.9
    together = [score(each.student, data) for each in made]
    single = [score(each.others["single"], data) for each in made]
    assert np.mean(together) > np.mean(single)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.objective=[{method: mse}, {method: cross_entropy}]"], "no label"),
        (["distill.objective=[{method: fitnets}]"], "losses on logits only"),
        (["distill.scheme.groups=[['0'], ['0', '1']]"], "more than once: 0"),
        (["distill.scheme.groups=1"], "groups"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(stages, overrides, message):
    with pytest.raises(RecipeError, match=message):
        stages(SCHEME, *overrides)


def test_groups_that_are_not_the_datas_are_refused_before_the_teacher_is_trained(stages, distilled):
    chain = stages(SCHEME, "distill.scheme.groups=[['0', '1'], ['2', 'x']]", "teacher.train.seed=9")
    with pytest.raises(UsageError, match="not a class of the data: x"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]


def test_a_plan_names_every_expert(stages, tmp_path):
    chain = stages("distill.scheme={name: task-conditioned, groups: 3}")
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    data = data_stage.data(plan)
    schemes.distill(plan, train_stage.teacher(plan, data), data)
    names = [stage.name for stage in plan.store.stages]
    assert names == ["data", "teacher", "expert1", "expert2", "expert3", "experts", "single"]


def test_experts_that_cannot_be_pruned_so_far_are_refused_before_the_teacher_is_trained(stages, distilled):
    chain = stages(SCHEME, "teacher.train.seed=9", prune={"target": {"macs": 0.01}})
    with pytest.raises(ModelError, match="out of reach"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]


def test_experts_that_cannot_be_quantized_are_refused_before_the_teacher_is_trained(stages, distilled):
    """The recipe's student could be; they are what is quantized."""
    vit = {"model": "timm/test_vit", "arguments": {"img_size": 16}}
    chain = stages(SCHEME, "teacher.train.seed=9", quantize={"calibration_images": 16})
    scheme = {"groups": 2, "student": vit}
    settings = chain.recipe.distill.model_copy(update={"scheme": SchemeSettings(name="task-conditioned", **scheme)})
    chain = replace(chain, recipe=chain.recipe.model_copy(update={"distill": settings}))
    with pytest.raises(ModelError, match="cannot be quantized"):
        chains.checked(chain)
    assert [done.name for done in chain.store.log] == ["data"]
