"""What pruning asks a data set: validation images for a sensitivity scan, the loss on training images for gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.pruning.importance import Losses
from edgekd.pruning.sensitivity import Probes

_PROBES, _GRADIENTS, _BATCH = 128, 512, 32


def probes_of(data: Dataset, count: int = _PROBES) -> Probes:
    """Validation images, spread over the split, and which answers are right by its labels.

    Args:
        count: how many at most.

    Raises:
        DataError: an image can no longer be read.
    """
    reader = open_reader(data, "validation")
    batches = list(reader.batches(_spread(len(reader), count), size=_BATCH))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in batches]))
    classes = len(data.classes)

    def correct(logits: Tensor) -> Tensor:
        if data.multilabel:
            return (logits[:, :classes] > 0) == (labels > 0)
        return logits[:, :classes].argmax(1) == labels

    return Probes([torch.from_numpy(images) for images, _ in batches], correct)


def losses_of(data: Dataset) -> Losses:
    """From a network to its loss on batches of at most 512 training images: (binary) cross entropy with the labels."""

    def losses(model: nn.Module) -> Iterator[Tensor]:
        reader = open_reader(data, "train")
        for images, labels in reader.batches(_spread(len(reader), _GRADIENTS), size=_BATCH):
            logits = model(torch.from_numpy(images))[:, : len(data.classes)]
            targets = torch.from_numpy(labels)
            if data.multilabel:
                yield functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
            else:
                yield functional.cross_entropy(logits, targets)

    return losses


def _spread(available: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.linspace(0, available - 1, min(count, available)).astype(np.int64)
