"""Self-distillation: generations, the last epoch, and a virtual teacher."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from edgekd import schemes
from edgekd.data.loader import Batch
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import RecipeError
from edgekd.recipe.settings import TermSettings
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store

scheme = import_module("edgekd.schemes.self")
SMALL = ("data.limit=64", "data.image_size=8", "distill.batch_size=32", "distill.epochs=3")
FEW = ("data.limit=100", "data.validation=0.45", "distill.epochs=30", "distill.batch_size=25")
BORN_AGAIN = "distill.objective=[{method: kd, temperature: 2}, {method: cross_entropy}]"
LAST_EPOCH = "distill.scheme={name: self, kind: last-epoch}"
TEACHER_FREE = "distill.scheme={name: self, kind: teacher-free}"
OBJECTIVE = (
    TermSettings.model_validate({"method": "kd", "temperature": 1.0}),
    TermSettings(method="cross_entropy"),
)


def last_epoch(**said):
    terms = build_terms(OBJECTIVE, Networks(nn.Identity(), None, 8, 6))
    return scheme.LastEpoch(terms, **{**said, "samples": 6, "classes": 3, "steps": 2, "epochs": 4})


def batch(rows: list[int], seed: int = 0) -> Batch:
    logits = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(seed))
    return Batch(logits, torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows))


def test_born_again_generations_each_learn_from_the_one_before(stages, distilled):
    chain = stages(*SMALL, "distill.scheme={name: self, generations: 2}", teacher=None)
    made = distilled(chain)
    first, second = train_stage.baseline(chain, data_stage.data(chain)), made.others["generation1"]
    assert list(made.others) == ["generation1"], "generation 0 is the baseline, and shown as that"
    assert second.details.training.teacher == first.digest
    assert made.student.details.training.teacher == second.digest
    assert [g.manifest.stage.settings["seed"] for g in (first, second, made.student)] == [0, 1000, 2000]
    again = stages(*SMALL, "distill.scheme={name: self, generations: 3}", teacher=None)
    distilled(again)
    assert [done.state for done in again.store.log] == ["reused"] * 4 + ["run"]


def test_born_again_takes_losses_on_features(stages, distilled):
    said = "distill.objective=[{method: attention, weight: 100}, {method: cross_entropy}]"
    made = distilled(stages(*SMALL, "distill.scheme=self", said, teacher=None))
    assert set(made.student.metrics["history"][0]["terms"]) == {"attention", "cross_entropy"}


def test_the_last_epochs_answers_teach_with_a_growing_share():
    objective, model = last_epoch(share=0.8, growing=True), nn.Identity()
    before, now = batch([4, 1]), batch([4, 1], seed=1)
    first = objective(model, before)
    assert float(first["kd"]) == 0.0
    torch.testing.assert_close(first["cross_entropy"], F.cross_entropy(before.images, before.targets))
    objective(model, batch([0, 2]))
    second = objective(model, now)  # epoch 2 of 4: a share of 0.4
    teacher = before.images.half().float().softmax(1)
    divergence = F.kl_div(now.images.log_softmax(1), teacher, reduction="batchmean")
    torch.testing.assert_close(second["kd"], 0.4 * divergence)
    torch.testing.assert_close(second["cross_entropy"], 0.6 * F.cross_entropy(now.images, now.targets))
    torch.testing.assert_close(objective.memory[[4, 1]], now.images.half())


def test_ps_kds_soft_targets_are_these_two_terms_up_to_their_entropy():
    """The gradient of CE((1 − α) y + α p_before, p) is that of (1 − α) CE + α KL."""
    objective, model = last_epoch(share=0.5, growing=False), nn.Identity()
    objective(model, batch([0, 1])), objective(model, batch([2, 3]))
    logits = batch([0, 1], seed=1).images.requires_grad_()
    losses = objective(model, Batch(logits, torch.tensor([0, 0]), torch.tensor([0, 1])))
    targets = 0.5 * F.one_hot(torch.tensor([0, 0]), 3) + 0.5 * batch([0, 1]).images.half().float().softmax(1)
    (ours,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, targets), logits)
    torch.testing.assert_close(ours, theirs)


def test_a_sample_that_was_not_shown_yet_pulls_the_student_nowhere():
    objective, model = last_epoch(share=0.8, growing=False), nn.Identity()
    objective(model, batch([0, 1])), objective(model, batch([2, 3]))
    assert objective.share_now() > 0 and objective.memory[[4, 5]].isnan().all()
    assert float(objective(model, batch([4, 5]))["kd"]) == 0.0


def test_the_virtual_teacher_is_right_and_unsure_of_the_rest():
    said = scheme.VirtualTeacher(0.9, 5)(batch([0])).logits.softmax(1)
    torch.testing.assert_close(said, torch.tensor([[0.9, 0.025, 0.025, 0.025, 0.025]]))


def test_a_killed_training_goes_on_to_the_same_bits(stages, distilled, kill_at, tmp_path):
    chain = stages(*SMALL, LAST_EPOCH, teacher=None)
    whole = distilled(chain)
    with pytest.raises(kill_at.Killed):
        distilled(replace(chain, store=Store(tmp_path), console=kill_at(5)))
    resumed = distilled(replace(chain, store=Store(tmp_path)))
    assert resumed.student.digest == whole.student.digest
    again = stages(*SMALL, LAST_EPOCH, teacher=None)
    distilled(again)
    assert [done.state for done in again.store.log] == ["reused", "reused"]


def test_the_last_epoch_is_remembered_over_a_streamed_set_too(stages, distilled, tmp_path):
    shades = np.random.default_rng(0).integers(0, 256, (2, 24, 8, 8, 3), dtype=np.uint8)
    for name, images in zip(("dark", "light"), (shades[0] // 2, 255 - shades[1] // 2), strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
    images = {"source": "image-folder", "root": str(tmp_path), "image_size": 8}
    steps = ("distill.epochs=3", "distill.batch_size=8", LAST_EPOCH)
    made = [
        distilled(stages(*steps, teacher=None, data={**images, "storage": storage})).student
        for storage in ("cached", "streamed")
    ]
    assert made[0].manifest.files == made[1].manifest.files


def test_a_plan_names_the_generations_and_touches_nothing(stages, tmp_path):
    chain = stages("distill.scheme={name: self, generations: 2}", teacher=None)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    schemes.distill(plan, None, data_stage.data(plan))
    assert [stage.name for stage in plan.store.stages] == ["data", "baseline", "generation1", "generation2"]
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("distill.scheme={name: self, kind: reborn}", "Input should be 'born-again'"),
        ("distill.scheme={name: self, generations: 0}", "generations"),
        ("distill.scheme={name: self, kind: last-epoch, generations: 2}", "generations belongs to kind: born-again"),
        ("distill.scheme={name: self, kind: teacher-free, probability: 1.0}", "probability"),
        ("distill.objective=[{method: cross_entropy}]", "needs a loss that compares answers"),
    ],
)
def test_what_makes_no_sense_is_said_once(stages, said, message):
    with pytest.raises(RecipeError, match="1 mistake") as raised:
        stages("distill.scheme=self", said, teacher=None)
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", [LAST_EPOCH, TEACHER_FREE])
def test_without_layers_to_compare_losses_on_features_are_refused(stages, kind):
    with pytest.raises(RecipeError, match="takes losses on logits only"):
        stages(kind, "distill.objective=[{method: attention}, {method: kd}, {method: cross_entropy}]", teacher=None)


def test_the_last_epoch_needs_labels_to_begin_with(stages):
    with pytest.raises(RecipeError, match="begins with labels alone"):
        stages(LAST_EPOCH, "distill.objective=[{method: kd}]", teacher=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "least"),
    [
        pytest.param(("distill.scheme=self", BORN_AGAIN), 0.0, id="born-again gains"),
        # On so small a set neither is told from labels alone: not worse by more than seeds differ.
        pytest.param((LAST_EPOCH,), -0.015, id="last-epoch keeps up"),
        pytest.param((TEACHER_FREE,), -0.015, id="teacher-free keeps up"),
    ],
)
def test_what_is_claimed_on_digits(stages, distilled, score, said, least):
    """Accuracy over labels alone in the same steps, mean over three seeds, on 100 images."""
    gains = []
    for seed in range(3):
        chain = stages(*FEW, *said, f"distill.seed={seed}", teacher=None)
        data = data_stage.data(chain)
        gains.append(score(distilled(chain).student, data) - score(train_stage.baseline(chain, data), data))
    assert sum(gains) / 3 > least


def test_without_a_baseline_generation_0_is_shown(stages, distilled):
    said = ("distill.scheme={name: self, generations: 2}", "distill.baseline=false")
    made = distilled(stages(*SMALL, *said, teacher=None))
    assert list(made.others) == ["generation0", "generation1"]


def test_later_links_learn_what_the_student_did_where_it_means_something_to_them(stages, distilled):
    """The last epoch's answers are a network's, as theirs are; the virtual teacher's are not."""
    last, free = (distilled(stages(*SMALL, kind, teacher=None)) for kind in (LAST_EPOCH, TEACHER_FREE))
    assert [term.parameters for term in last.objective] == [{"temperature": 1.0}, {}]
    assert free.objective is None
