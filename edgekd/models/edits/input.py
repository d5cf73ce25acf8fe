"""Takes inputs that were made for another network: {"edit": "input", "given": input, "own": input}.

An input is {"image_size": [H, W], "mean": [C], "std": [C]}; the number of means is that of its channels. Teacher and
student see the same batch, which is made for the student; before the teacher it is converted to the teacher's own
channels, size and normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.edits import Edit
from edgekd.runtime.preprocess import Size

# Of RGB in greyscale (ITU-R BT.601), as Pillow converts.
_LUMA = (0.299, 0.587, 0.114)


class Conversion:
    """Converts inputs (B, C, H, W) from one normalisation, number of channels and size to another.

    Sizes of another ratio of height to width keep their image whole: the rest is filled with the mean.

    Args:
        given, own: see the module's docstring.

    Raises:
        KeyError, TypeError, ValueError: one of them is not an input.
    """

    def __init__(self, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self._given, self._own = (_Normalisation(each) for each in (given, own))
        before, after = (_size_of(each) for each in (given, own))
        scale = min(after[0] / before[0], after[1] / before[1])
        inner = tuple(max(1, round(side * scale)) for side in before)
        self._resize = None if inner == before else [resampling(*sides) for sides in zip(before, inner, strict=True)]
        rest = [whole - part for whole, part in zip(after, inner, strict=True)]
        self._border = [rest[1] // 2, rest[1] - rest[1] // 2, rest[0] // 2, rest[0] - rest[0] // 2]

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """As a hook before a network's forward()."""
        return self.convert(inputs[0])

    def convert(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as given to (B, C, H, W) of the network's own."""
        values = self._given.undo(images)
        if values.shape[1] < self._own.channels:
            values = values.expand(-1, self._own.channels, -1, -1)
        elif values.shape[1] > self._own.channels:
            values = (values * _column(_LUMA, values)).sum(1, keepdim=True)
        images = self._own.apply(values)
        if self._resize is not None:
            rows, columns = (matrix.to(images) for matrix in self._resize)
            images = rows @ images @ columns.T
        return nn.functional.pad(images, self._border) if any(self._border) else images


class _Normalisation:
    def __init__(self, described: Mapping[str, Any]) -> None:
        self._mean = tuple(float(value) for value in described["mean"])
        self._std = tuple(float(value) for value in described["std"])
        self.channels = len(self._mean)
        if self.channels not in (1, 3) or len(self._std) != self.channels or min(self._std) <= 0.0:
            raise ValueError(f"not a normalisation: mean {self._mean}, std {self._std}")

    def undo(self, images: Tensor) -> Tensor:
        return images * _column(self._std, images) + _column(self._mean, images)

    def apply(self, values: Tensor) -> Tensor:
        return (values - _column(self._mean, values)) / _column(self._std, values)


def resampling(before: int, after: int) -> Tensor:
    """The matrix (after, before) that resamples a row of pixels linearly, with the wider filter where it gets shorter.

    These are the weights that Pillow's bilinear resize has: a triangle around each new pixel's centre, as wide as the
    larger of an old and a new pixel, cut at the edge and scaled to a sum of 1.
    """
    scale = before / after
    width = max(scale, 1.0)
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(before, dtype=torch.float64) + 0.5)[None, :] - centres[:, None]
    weights = (1.0 - distance.abs() / width).clamp(min=0.0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """Convert the inputs of `model` before its forward(), in place.

    Raises:
        ModelError: the edit is damaged.
    """
    try:
        conversion = Conversion(edit["given"], edit["own"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("the input of this checkpoint is not valid", found=repr(error)) from None
    # Before the hooks of earlier edits, which convert to the input that these were trained with.
    model.register_forward_pre_hook(conversion, prepend=True)
    return model


def _size_of(described: Mapping[str, Any]) -> Size:
    height, width = (int(side) for side in described["image_size"])
    return height, width


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


EDIT = Edit(apply=apply)
