"""A student that learns from its own outputs of the epoch before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from edgekd.data.loader import Batch
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import RecipeError
from edgekd.schemes.last_epoch import OBJECTIVE, LastEpoch
from edgekd.store.store import Store

SMALL = ("data.limit=64", "data.image_size=8", "distill.batch_size=32", "distill.epochs=3")
FEW = ("data.limit=100", "data.validation=0.45", "distill.epochs=30", "distill.batch_size=25")
SCHEME = "distill.scheme=last-epoch"


def last_epoch(**arguments):
    terms = build_terms(OBJECTIVE, Networks(nn.Identity(), None, 8, 6, 10))
    return LastEpoch(terms, **{**arguments, "shape": (6, 3), "steps": 2, "epochs": 4})


def batch(rows: list[int], seed: int = 0) -> Batch:
    logits = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(seed))
    return Batch(logits, torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows))


def test_the_last_epochs_outputs_have_a_growing_weight():
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


def test_a_sample_that_was_not_shown_yet_gives_no_gradient():
    objective, model = last_epoch(share=0.8, growing=False), nn.Identity()
    objective(model, batch([0, 1])), objective(model, batch([2, 3]))
    assert objective.share_now() > 0 and objective.memory[[4, 5]].isnan().all()
    assert float(objective(model, batch([4, 5]))["kd"]) == 0.0


def test_an_interrupted_training_resumes_to_the_same_bits(stages, distilled, kill_at, tmp_path):
    chain = stages(*SMALL, SCHEME, teacher=None)
    whole = distilled(chain)
    with pytest.raises(kill_at.Killed):
        distilled(replace(chain, store=Store(tmp_path), console=kill_at(5)))
    resumed = distilled(replace(chain, store=Store(tmp_path)))
    assert resumed.student.digest == whole.student.digest
    again = stages(*SMALL, SCHEME, teacher=None)
    distilled(again)
    assert [done.state for done in again.store.log] == ["reused", "reused"]


def test_the_last_epochs_outputs_are_kept_for_a_streamed_set_too(stages, distilled, tmp_path):
    shades = np.random.default_rng(0).integers(0, 256, (2, 24, 8, 8, 3), dtype=np.uint8)
    for name, images in zip(("dark", "light"), (shades[0] // 2, 255 - shades[1] // 2), strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{index}.png")
    images = {"source": "image-folder", "root": str(tmp_path), "image_size": 8}
    steps = ("distill.epochs=3", "distill.batch_size=8", SCHEME)
    made = [
        distilled(stages(*steps, teacher=None, data={**images, "storage": storage})).student
        for storage in ("cached", "streamed")
    ]
    assert made[0].manifest.files == made[1].manifest.files


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.scheme={name: last-epoch, share: 0}", "share"),
        ("distill.scheme={name: last-epoch, generations: 2}", "unknown parameter of last-epoch"),
        ("distill.objective=[{method: cross_entropy}]", "needs a loss that compares outputs"),
        ("distill.objective=[{method: attention}, {method: cross_entropy}]", "takes losses on logits only"),
        ("distill.objective=[{method: kd}]", "begins with labels only"),
    ],
)
def test_mistakes_are_reported_once(stages, override, message):
    with pytest.raises(RecipeError, match="1 mistake") as raised:
        stages(SCHEME, override, teacher=None)
    assert message in str(raised.value)


def test_later_stages_learn_what_the_student_did(stages, distilled):
    """Its teacher was a network, as theirs is."""
    made = distilled(stages(*SMALL, SCHEME, teacher=None))
    assert [term.parameters for term in made.objective] == [{"temperature": 1.0}, {}]


@pytest.mark.slow
def test_it_is_not_worse_than_the_baseline_on_digits(gain):
    """On 100 images it cannot be distinguished from labels only: it is not worse by more than seeds differ."""
    assert gain(*FEW, SCHEME) > -0.015
