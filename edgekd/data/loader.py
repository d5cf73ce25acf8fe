"""Batches for training and evaluation, bit-identical on every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd.data.augment import Normalise, draw_order, draw_view, resolve
from edgekd.data.balance import Balance, draw_by_class
from edgekd.data.dataset import Split
from edgekd.data.reader import Reader, Rows
from edgekd.errors import DataError
from edgekd.recipe.settings import AugmentSettings
from edgekd.runtime.cores import usable_cores
from edgekd.runtime.preprocess import InputShape, Pixels, Preprocessing

_MOST_WORKERS = 8
USUAL_BATCH = 128
_LEAST_BATCH, _LEAST_STEPS = 8, 8


@dataclass(frozen=True)
class Batch:
    """One step's images, on the loader's device.

    Attributes:
        images: (B, C, H, W) float32, normalised, channels_last.
        targets: (B,) int64; with several labels per image (B, C), 0 or 1.
        indices: (B,) int64, positions in the split.
        view: number of the view of each image; equal numbers give equal pixels, but for images drawn several times.
        second: (B, C, H, W), another view of the same images, where the loader makes one.
        epoch: epochs done before this batch, with a fraction; infinite outside training.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    view: int = 0
    second: Tensor | None = None
    epoch: float = math.inf


class BatchSource(Protocol):
    """The batches of a training; every epoch can be drawn again.

    Attributes:
        shape: of its images.
        batch_size: the number of images in a batch.
    """

    @property
    def shape(self) -> InputShape: ...

    @property
    def batch_size(self) -> int: ...

    def __len__(self) -> int:
        """Steps per epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Variation:
    """How a training varies its images from epoch to epoch.

    Attributes:
        augment: how images are varied.
        mirror: whether a mirrored image keeps its class.
        seed: with the epoch's number it decides the order and how each image is varied.
        views: how many views of an image there are, shown in turn over the epochs; None: a new one every epoch.
        second_view: also give each image in another view.
        balance: how the images of an epoch are drawn: each of them once ("none"), or by class.
    """

    augment: AugmentSettings
    mirror: bool = False
    seed: int = 0
    views: int | None = None
    second_view: bool = False
    balance: Balance = "none"


def fitting_batch(wanted: int | None, images: int) -> int:
    """The number of images in a batch of a training.

    Args:
        wanted: the recipe's; None: 128, or so many that an epoch has 8 steps. Batches of fewer than 8 images are not
            chosen, because batch norms measure their statistics on them.
        images: the number of training images, which no batch exceeds.
    """
    if wanted is None:
        # In whole eights, which vector instructions work on.
        wanted = max(_LEAST_BATCH, min(USUAL_BATCH, images // _LEAST_STEPS // 8 * 8))
    return max(1, min(wanted, images))


class Loader:
    """Turns a split into batches.

    For training (`variation` given) the order is shuffled in each epoch, or the images are drawn by class, and the
    last, incomplete batch is dropped unless it is the only one. For evaluation all images come in order,
    centre-cropped.

    Args:
        split: see edgekd.data.dataset.open_split().
        preprocessing: how the network sees an image.
        variation: how training images are varied; None for evaluation.
        device: of the batches.
        workers: processes that read images; None: one per core for a streamed split (at most 8), none for a cached
            one. The batches do not depend on it.
        classes: the number of classes of the labels; further logits of a network belong to other heads.

    Raises:
        UsageError: the augmentation's scale is not a range.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        variation: Variation | None = None,
        device: str | torch.device = "cpu",
        workers: int | None = None,
        classes: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._split = split
        self._reader = Reader(split, preprocessing)
        self.shape = preprocessing.shape
        self.classes = classes
        self.multilabel = split.labels.ndim == 2
        self.batch_size = batch_size
        self._variation = variation
        self._augmentation = (
            resolve(variation.augment, preprocessing, mirror=variation.mirror) if variation is not None else None
        )
        self._normalise = Normalise(preprocessing, self.device)
        if workers is None:
            workers = min(usable_cores(), _MOST_WORKERS) if split.streamed else 0
        self._workers = workers

    @property
    def image_count(self) -> int:
        return len(self._split)

    def __len__(self) -> int:
        """Steps per epoch."""
        whole, rest = divmod(len(self._split), self.batch_size)
        return max(whole, 1) if self._augmentation is not None else whole + (rest > 0)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch.

        Raises:
            DataError: an image of a streamed split can no longer be read.
        """
        order, rows, view = self._drawn(number)
        shown = len(self) * self.batch_size
        for step, batch in enumerate(self._batches(order[:shown], view, rows[:shown])):
            yield replace(batch, epoch=number + step / len(self))

    def _drawn(self, epoch: int) -> tuple[Rows, Rows, int]:
        """The images of an epoch in order, their rows in the table of random draws, and the number of their view."""
        every = np.arange(len(self._split))
        if self._variation is None:
            return every, every, epoch
        seed, views = self._variation.seed, self._variation.views
        view = epoch if views is None else epoch % views
        if self._variation.balance == "none":
            order = draw_order(seed, epoch, len(every)).numpy()
            return order, order, view
        order = draw_by_class(self._split.labels, self._variation.balance, seed=seed, epoch=epoch)
        # An image drawn twice looks different each time, unless its views are fixed.
        return order, every if views is None else order, view

    def view(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """The images in order, from position `first` on, in the view of epoch `number`.

        Raises:
            DataError: as epoch().
        """
        order = np.arange(first, len(self._split))
        yield from self._batches(order, number, order)

    def _batches(self, order: Rows, view: int, rows: Rows) -> Iterator[Batch]:
        draws: list[Tensor] = []
        if self._variation is not None:
            draws.append(draw_view(self._variation.seed, view, len(self._split)))
            if self._variation.second_view:
                draws.append(draw_view(self._variation.seed, view, len(self._split), second=True))
        starts = range(0, len(order), self.batch_size)
        steps = [order[start : start + self.batch_size] for start in starts]
        for start, indices, pixels in zip(starts, steps, self._read(steps), strict=True):
            if isinstance(pixels, DataError):
                raise pixels
            chosen = torch.from_numpy(rows[start : start + self.batch_size])
            yield self._batch(indices, pixels, [drawn[chosen] for drawn in draws], view)

    def _batch(self, indices: Rows, pixels: Tensor, draws: Sequence[Tensor], view: int) -> Batch:
        raw = self._move(pixels)
        images = [self._seen(raw, None)] if not draws else [self._seen(raw, drawn) for drawn in draws]
        return Batch(
            images=images[0],
            targets=self._move(torch.from_numpy(self._split.labels[indices])),
            indices=self._move(torch.from_numpy(indices)),
            view=view,
            second=images[1] if len(images) > 1 else None,
        )

    def _seen(self, pixels: Tensor, draws: Tensor | None) -> Tensor:
        if self._augmentation is None or draws is None:
            return self._normalise(pixels)
        return self._normalise(self._augmentation(pixels, self._move(draws)))

    def _read(self, steps: Sequence[Rows]) -> Iterator[Tensor | DataError]:
        """The uint8 pixels of each step, or the error from reading them."""
        # Augmentation needs the whole image and crops it later.
        read = self._split.pixels if self._augmentation is not None else self._reader.pixels
        reader = _Steps(read, steps)
        if self._workers == 0:
            yield from (reader[step] for step in range(len(steps)))
            return
        # Its own generator: by default each epoch draws from the global one, which dropout uses.
        yield from DataLoader(
            reader,
            batch_size=None,
            num_workers=min(self._workers, len(steps)),
            generator=torch.Generator().manual_seed(0),
        )

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


class _Steps(Dataset["Tensor | DataError"]):
    """The steps' pixels. Errors are returned, because an exception raised in a worker process loses its type."""

    def __init__(self, read: Callable[[Rows], Pixels], steps: Sequence[Rows]) -> None:
        self._read = read
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> Tensor | DataError:
        try:
            return torch.from_numpy(self._read(self._steps[step]))
        except DataError as error:
            return error
