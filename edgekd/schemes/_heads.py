"""Several heads on one trunk, and how they are trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch, BatchSource
from edgekd.distillation.objective import Teacher
from edgekd.distillation.terms import Seen, Terms


@dataclass(frozen=True)
class Batches(Batch):
    """The main task's batch, and by name those of tasks with images of their own."""

    others: Mapping[str, Batch] | None = None


class Together:
    """Shows a batch of each loader a step, for as many steps as the main one has.

    Every epoch begins all of them anew, shuffled; a shorter one begins again, a longer one is cut off.
    """

    def __init__(self, main: BatchSource, others: Mapping[str, BatchSource]) -> None:
        self.image_size = main.image_size
        self._main, self._others = main, others

    def __len__(self) -> int:
        return len(self._main)

    def epoch(self, number: int) -> Iterator[Batches]:
        others = {name: self._again(loader, number) for name, loader in self._others.items()}
        for batch in self._main.epoch(number):
            yield Batches(**vars(batch), others={name: next(batches) for name, batches in others.items()})

    def _again(self, loader: BatchSource, number: int) -> Iterator[Batch]:
        rounds = -(-len(self) // len(loader))
        for again in range(rounds):
            yield from loader.epoch(number * rounds + again)


class Head(nn.Module):
    """One task's part of the logits and what its teacher and its labels say to it.

    Args:
        columns: of the joint network's logits.
        groups: (C,) from the main task's labels to this one's; None: the labels are its own.
    """

    groups: Tensor | None

    def __init__(self, teacher: Teacher, terms: Terms, columns: slice, weight: float, groups: Tensor | None) -> None:
        super().__init__()
        self.terms = terms
        self._teacher, self._columns, self._weight = teacher, columns, weight
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """From (B, ΣC) joint logits of this task's images to its weighted losses."""
        seen = Seen(
            student_logits=logits[:, self._columns],
            teacher_logits=self._teacher(batch).logits if self.terms.needs_teacher else None,
            targets=batch.targets if self.groups is None else self.groups[batch.targets],
            indices=batch.indices,
            epoch=batch.epoch,
        )
        return {name: self._weight * loss for name, loss in self.terms(seen).items()}


class MultiTask(nn.Module):
    """What fit() minimises: the sum over the tasks of what their terms say.

    Args:
        heads: by task; those with images of their own are in `batch.others` under their name.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.names = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, model: nn.Module, batch: Batches) -> dict[str, Tensor]:
        # One pass over all images, so that batch norms see in training what their statistics will be.
        others = dict(batch.others or {})
        parts = [batch.images, *(other.images for other in others.values())]
        logits = dict(zip(("", *others), model(torch.cat(parts)).split([len(part) for part in parts]), strict=True))
        losses: dict[str, Tensor] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            found = head(logits[name if name in others else ""], others.get(name, batch))
            losses |= {f"{name} {term}": loss for term, loss in found.items()}
        return losses


class Columns(nn.Module):
    """A network that answers one question only."""

    def __init__(self, network: nn.Module, columns: slice) -> None:
        super().__init__()
        self._network, self._columns = network, columns

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self._network(images)[:, self._columns]
        return answers
