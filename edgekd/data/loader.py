"""Batches for training and for evaluation, the same bits on every run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd.data.augment import Normalise, draw_order, draw_view, middle, resolve
from edgekd.data.dataset import Split
from edgekd.errors import DataError
from edgekd.runtime.preprocess import Preprocessing
from edgekd.settings import AugmentSettings

_MOST_WORKERS = 8
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One step's images, on the loader's device.

    Attributes:
        images: (B, 3, S, S) float32, normalised, channels_last.
        targets: (B,) int64.
        indices: (B,) int64, positions in the split.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


class Loader:
    """Turns a split into batches.

    For training (`augment` given) the order is shuffled anew each epoch and the last, short batch is left out unless
    it is the only one. For evaluation the images come in order, all of them, with their centre cropped.

    Args:
        split: see edgekd.data.dataset.open_split().
        preprocessing: how the network sees an image.
        augment: how images are varied; None: evaluation.
        mirror: whether a mirrored image keeps its class.
        seed: with the epoch's number it decides the order and how each image is varied.
        device: where the batches are made.
        workers: processes that read; None: one a core for a streamed split (8 at most), none for a cached one. It
            never changes the batches.

    Raises:
        UsageError: the augmentation makes no sense.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        augment: AugmentSettings | None = None,
        mirror: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        workers: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._split = split
        self.image_size = preprocessing.image_size
        self._batch_size = batch_size
        self._seed = seed
        self._augmentation = resolve(augment, preprocessing, mirror=mirror) if augment is not None else None
        self._normalise = Normalise(preprocessing, self.device)
        self._workers = _default_workers(split) if workers is None else workers

    def __len__(self) -> int:
        """Steps an epoch."""
        whole, rest = divmod(len(self._split), self._batch_size)
        return max(whole, 1) if self._augmentation is not None else whole + (rest > 0)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch.

        Raises:
            DataError: an image of a streamed split cannot be read any more.
        """
        count = len(self._split)
        order, view = np.arange(count), None
        if self._augmentation is not None:
            order = draw_order(self._seed, number, count).numpy()
            view = draw_view(self._seed, number, count)
        steps = [order[i * self._batch_size : (i + 1) * self._batch_size] for i in range(len(self))]
        for indices, pixels in zip(steps, self._read(steps), strict=True):
            if isinstance(pixels, DataError):
                raise pixels
            yield self._batch(indices, pixels, view)

    def _batch(self, indices: Indices, pixels: Tensor, view: Tensor | None) -> Batch:
        images = self._move(pixels)
        if self._augmentation is None or view is None:
            images = middle(images, self.image_size)
        else:
            images = self._augmentation(images, self._move(view[torch.from_numpy(indices)]))
        return Batch(
            images=self._normalise(images),
            targets=self._move(torch.from_numpy(self._split.labels[indices])),
            indices=self._move(torch.from_numpy(indices)),
        )

    def _read(self, steps: Sequence[Indices]) -> Iterator[Tensor | DataError]:
        """The uint8 pixels of each step, or why there are none."""
        reader = _Reader(self._split, steps)
        if self._workers == 0:
            yield from (reader[step] for step in range(len(steps)))
            return
        # A generator of its own: by default every epoch would take a number from the one that dropout uses.
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


class _Reader(Dataset["Tensor | DataError"]):
    """Step by step, in whichever process. Hands errors over: raised in a worker they would lose their form."""

    def __init__(self, split: Split, steps: Sequence[Indices]) -> None:
        self._split = split
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> Tensor | DataError:
        try:
            return torch.from_numpy(self._split.pixels(self._steps[step]))
        except DataError as error:
            return error


def _default_workers(split: Split) -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS) if split.streamed else 0
