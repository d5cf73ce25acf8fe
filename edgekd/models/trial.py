"""A trial of a network: what it returns for images, and how that is described in a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, summary
from edgekd.runtime.preprocess import InputShape

_SHOWN = 4


def answer_of(model: nn.Module, shape: InputShape, *, images: int = 1) -> object:
    """What a network returns for black images.

    Raises:
        ModelError: it cannot compute images of this shape.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    try:
        return model(torch.zeros(images, *shape, device=device))
    # The network's own code runs here, which may raise anything: of a layer whose input is too small, for example.
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot compute images of {shape}",
            found=summary(error),
            hint="set data.image_size to the size that it was made for, or its arguments (timm: img_size) to this one",
        ) from error


def describe(answer: object) -> str:
    """What a network returned, with the shapes of its tensors."""
    if isinstance(answer, Tensor):
        of = f" of {answer.dtype}" if not answer.is_floating_point() else ""
        return f"a tensor{of or f' of shape {tuple(answer.shape)}'}"
    kind = f"a {type(answer).__name__}"
    if isinstance(answer, Mapping):
        return f"{kind} with {', '.join(map(str, list(answer)[:_SHOWN]))}{'…' if len(answer) > _SHOWN else ''}"
    if isinstance(answer, Sequence) and answer and all(isinstance(each, Tensor) for each in answer):
        shapes = ", ".join(str(tuple(each.shape)) for each in answer[:_SHOWN])
        count = f"{len(answer)} tensor{'s' if len(answer) > 1 else ''}"
        return f"{kind} of {count}: {shapes}{', …' if len(answer) > _SHOWN else ''}"
    return kind
