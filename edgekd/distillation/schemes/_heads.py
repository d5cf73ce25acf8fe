"""Several heads on one trunk: how they are trained together, and cut apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.artifacts import Checkpoint
from edgekd.data.loader import Batch, BatchSource
from edgekd.distillation.objective import Teacher
from edgekd.distillation.terms import Seen, Terms
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import load_state
from edgekd.runtime.preprocess import Preprocessing
from edgekd.settings import ModelSettings
from edgekd.training.start import start


@dataclass(frozen=True)
class Batches(Batch):
    """The main task's batch, and by name those of tasks with pictures of their own."""

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
        """From (B, ΣC) joint logits of this task's pictures to its weighted losses."""
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
        heads: by task; those with pictures of their own are in `batch.others` under their name.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.names = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, model: nn.Module, batch: Batches) -> dict[str, Tensor]:
        # One pass over all pictures, so that batch norms see in training what their statistics will be.
        others = dict(batch.others or {})
        parts = [batch.images, *(other.images for other in others.values())]
        logits = dict(zip(("", *others), model(torch.cat(parts)).split([len(part) for part in parts]), strict=True))
        losses: dict[str, Tensor] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            found = head(logits[name if name in others else ""], others.get(name, batch))
            losses |= {f"{name} {term}": loss for term, loss in found.items()}
        return losses


def cut_head(joint: Checkpoint, columns: slice) -> tuple[nn.Module, Architecture]:
    """The network of some of the logits alone: the same weights, those of its last layer by their rows.

    Raises:
        ModelError: the number of classes changes more of this network than rows.
    """
    wide = checkpoints.load(joint)
    said = checkpoints.architecture_of(joint)
    architecture = said.model_copy(update={"num_classes": columns.stop - columns.start})
    network, state = build(architecture), wide.state_dict()
    rows = _rows_of_classes(wide, network, said.model, said.num_classes, architecture.num_classes)
    load_state(network, state | {name: state[name][columns] for name in rows}, origin=joint.path)
    return network.eval(), architecture


def joined(classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The joint network's classes."""
    return tuple(f"{name}: {each}" for name, own in classes.items() for each in own)


def check_cut(model: ModelSettings, seen: Preprocessing, classes: Mapping[str, Sequence[str]]) -> None:
    """Build the joint network and each task's, untrained. Raises ModelError as cut_head() does."""
    joint = start(model, seen, joined(classes), adopted=False)
    for own in classes.values():
        narrow = build(joint.architecture.model_copy(update={"num_classes": len(own)}))
        _rows_of_classes(joint.network, narrow, model.model, joint.architecture.num_classes, len(own))


def _rows_of_classes(wide: nn.Module, narrow: nn.Module, model: str, all_classes: int, classes: int) -> list[str]:
    """Which tensors of a network have a row a class, seen from the same network with fewer.

    Raises:
        ModelError: the number of classes changes more of this network than rows.
    """
    whole, cut = wide.state_dict(), narrow.state_dict()
    if whole.keys() != cut.keys():
        raise ModelError(f"{model} cannot be cut into heads", found="other layers for another number of classes")
    differ = {name: value for name, value in cut.items() if whole[name].shape != value.shape}
    for name, value in differ.items():
        shapes = (tuple(whole[name].shape), tuple(value.shape))
        if (shapes[0][0], shapes[1][0]) != (all_classes, classes) or shapes[0][1:] != shapes[1][1:]:
            raise ModelError(
                f"{model} cannot be cut into heads",
                found=f"{name} is {shapes[1]} for {classes} classes and {shapes[0]} for all",
                allowed="networks whose last layer has one row of weights a class",
            )
    return list(differ)
