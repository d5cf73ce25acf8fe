"""A weighted sum of terms over one batch, with the teacher asked once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distillation.terms import Term
from edgekd.training.host import autocast, resolve_precision


class Teacher:
    """A frozen network that answers in the precision in which this machine is fastest.

    It is no nn.Module, so that a student's optimiser, checkpoint and resume state never hold it.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._network.requires_grad_(False)
        self._device = device
        self.precision = resolve_precision("auto", network, device, inference=True)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, C) logits, float32."""
        with autocast(self.precision, self._device):
            logits: Tensor = self._network(images)
        return logits.float()


class Distillation(nn.Module):
    """What fit() minimises: what the terms say about the student's and the teacher's answers to the same pictures."""

    def __init__(self, teacher: Teacher, terms: Sequence[Term]) -> None:
        super().__init__()
        self._teacher = teacher
        self._terms = tuple(terms)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        quantities = {
            "student_logits": model(batch.images),
            "teacher_logits": self._teacher(batch.images),
            "targets": batch.targets,
        }
        losses: dict[str, Tensor] = {}
        for term in self._terms:
            losses[_unused(term.method, losses)] = term(quantities)
        return losses


def _unused(name: str, taken: dict[str, Tensor]) -> str:
    """A method may stand in an objective twice, with other parameters."""
    return name if name not in taken else f"{name}-{len(taken) + 1}"
