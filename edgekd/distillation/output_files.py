"""The files of stored teacher outputs: an interruption loses a few batches at most; their format: outputs.py."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.data.storage import link_or_copy
from edgekd.errors import ModelError
from edgekd.recipe.settings import OutputSettings
from edgekd.store.artifacts import read_as, write_json
from edgekd.store.records import Count, Frozen

# Batches between two flushes: an interruption loses these at most, and flushing after each would slow the teacher down.
_SAVE_EVERY = 64


class _Head(Frozen):
    """How many rows are safely on the disk."""

    done: Count


def compress(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest log-probabilities of each row, and the sum of the rest.

    Args:
        logits: (B, C), unnormalised.
        top_k: k, from 1 to C.

    Returns:
        (B, k + 1) log-probabilities, the last one that of all other classes together, and (B, k) the classes.
    """
    ordered, classes = logits.log_softmax(1).sort(dim=1, descending=True)
    others = ordered[:, top_k:].logsumexp(1, keepdim=True)
    return torch.cat([ordered[:, :top_k], others], dim=1), classes[:, :top_k]


def spread(values: Tensor, top_classes: Tensor, classes: int) -> Tensor:
    """(B, C) log-probabilities from the results of compress(): the rest is divided evenly among the other classes.

    Args:
        values: (B, k + 1) log-probabilities.
        top_classes: (B, k) int64.
        classes: C.
    """
    top, others = values[:, :-1], values[:, -1:]
    full = (others - math.log(max(1, classes - top.shape[1]))).expand(-1, classes).clone()
    return full.scatter_(1, top_classes, top)


class OutputWriter:
    """Writes views beside the artifact, and records from time to time how many rows are safely on the disk.

    Args:
        folder: for the files until finish(); files of an interrupted run are continued.
        images, classes: N and C.
        settings: how many views, and how many classes of each.

    Attributes:
        done: how many rows an interrupted run has written, over all views.

    Raises:
        OSError: no room on the disk.
    """

    done: int

    def __init__(self, folder: Path, images: int, classes: int, settings: OutputSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._images, self._unsaved = folder, images, 0
        self._top_k = None if settings.top_k is None else min(settings.top_k, classes)
        width = classes if self._top_k is None else self._top_k + 1
        self._open: dict[str, npt.NDArray[np.generic]] = {}
        for view in range(settings.views):
            self._allocate(f"view-{view}.npy", (images, width), np.float16)
            if self._top_k is not None:
                self._allocate(f"view-{view}-classes.npy", (images, self._top_k), np.int32)
        self.done = read_as(self._head, _Head).done if self._head.exists() else 0
        self._written = self.done

    @property
    def _head(self) -> Path:
        return self._folder / "head.json"

    def write(self, view: int, rows: npt.NDArray[np.int64], logits: Tensor) -> None:
        """Write the logits of some images in one view.

        Args:
            view: its number, from 0.
            rows: (B,) positions of the images in the training split.
            logits: (B, C), unnormalised.

        Raises:
            ModelError: a logit is too large for half precision.
        """
        if self._top_k is None:
            values = logits.half()
        else:
            values, top_classes = compress(logits, self._top_k)
            values = values.clamp_min(torch.finfo(torch.float16).min).half()
            self._array(f"view-{view}-classes.npy")[rows] = top_classes.int().cpu().numpy()
        if not bool(values.isfinite().all()):
            raise ModelError(
                "the teacher's logits are too large to be stored in half precision",
                found=f"{float(logits.abs().max()):.3g}",
                allowed="up to 65504",
                hint="set distill.teacher_outputs.top_k, which stores log-probabilities, or teacher_outputs: off",
            )
        self._array(f"view-{view}.npy")[rows] = values.cpu().numpy()
        self._written += len(rows)
        self._unsaved += 1
        if self._unsaved == _SAVE_EVERY:
            self._save()

    def finish(self, out: Path) -> None:
        """Link or copy the files of all views into a folder.

        Args:
            out: an existing folder.
        """
        self._save()
        self._open.clear()
        for file in self._folder.glob("view-*.npy"):
            # Not moved: if the run is interrupted before the stage is sealed, they are needed here again.
            link_or_copy(file, out / file.name)

    def _save(self) -> None:
        for array in self._open.values():
            assert isinstance(array, np.memmap)
            array.flush()
        write_json(self._head, {"done": self._written})
        self._unsaved = 0
        self._open.clear()

    def _array(self, name: str) -> npt.NDArray[np.generic]:
        if name not in self._open:
            self._open[name] = np.load(self._folder / name, mmap_mode="r+")
        return self._open[name]

    def _allocate(self, name: str, shape: tuple[int, int], dtype: type[np.generic]) -> None:
        """Reserves the space. Raises OSError if the disk is full: writing to the memory map would end the process."""
        path = self._folder / name
        if path.exists():
            return
        beside = path.with_suffix(".new")
        np.lib.format.open_memmap(beside, mode="w+", dtype=dtype, shape=shape)
        with beside.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, beside.stat().st_size)
        beside.replace(path)
