"""Terms over images of which some have no label."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgekd.distillation.partly_labelled import PartlyLabelled
from edgekd.distillation.terms import Networks, Seen, build_terms
from edgekd.recipe.settings import TermSettings


def terms(*methods: str) -> PartlyLabelled:
    built = build_terms([TermSettings(method=name) for name in methods], Networks(torch.nn.Identity(), None, 8, 8, 10))
    return PartlyLabelled(built.each)


def seen(targets: list[int]) -> Seen:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3)
    return Seen(student.requires_grad_(), teacher, torch.tensor(targets), torch.arange(4))


def test_losses_that_need_labels_use_labelled_rows_only():
    batch = seen([-1, 2, -1, 0])
    losses = terms("kd", "cross_entropy", "dkd")(batch)
    assert losses["cross_entropy"].item() == pytest.approx(
        F.cross_entropy(batch.student_logits[[1, 3]], torch.tensor([2, 0])).item()
    )
    all_four = F.kl_div(
        F.log_softmax(batch.student_logits / 4, 1), F.softmax(batch.teacher_logits / 4, 1), reduction="batchmean"
    )
    assert losses["kd"].item() == pytest.approx(16 * all_four.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(losses["dkd"], batch.student_logits)
    assert gradient[[0, 2]].eq(0).all() and gradient[[1, 3]].ne(0).any()


def test_without_a_labelled_row_they_are_zero_and_the_other_losses_still_train():
    batch = seen([-1] * 4)
    losses = terms("kd", "nkd")(batch)
    assert losses["nkd"].item() == 0.0 and not losses["nkd"].requires_grad
    assert torch.autograd.grad(sum(losses.values()), batch.student_logits)[0].ne(0).any()
