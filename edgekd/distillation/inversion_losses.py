"""What DeepInversion minimises over an image's pixels, beside the cross-entropy; see inversion.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError


def check_batch_norms(network: nn.Module) -> None:
    """Raises ModelError if the network has no batch norms with statistics to match."""
    if not batch_norms(network):
        raise ModelError(
            f"{type(network).__name__} has no batch norms, whose statistics data-free distillation needs",
            found="no BatchNorm2d with running statistics",
            allowed="e.g. a ResNet, MobileNet, EfficientNet or RegNet as the teacher; not ViT or ConvNeXt",
            hint="take another teacher, or distill on images: scheme: offline, or semi-supervised without labels",
        )


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a network that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]


@contextmanager
def reading_gaps(network: nn.Module) -> Iterator[list[Tensor]]:
    """In the with-block every forward pass appends one statistics_gap() per batch norm to the returned list."""
    gaps: list[Tensor] = []

    def read(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
        gaps.append(statistics_gap(inputs[0], layer.running_mean, layer.running_var))

    hooks = [layer.register_forward_pre_hook(read) for layer in batch_norms(network)]
    try:
        yield gaps
    finally:
        for hook in hooks:
            hook.remove()


def statistics_gap(features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """‖μ(x) − mean‖ + ‖σ²(x) − variance‖ (equation 4), over a batch and its pixels.

    Args:
        features: (B, C, H, W), the batch norm's input.
        mean, variance: (C,), its running statistics.
    """
    rows = features.movedim(1, 3).flatten(0, 2)
    centre = rows.mean(0)
    spread = (rows - centre).square().mean(0)
    gap: Tensor = torch.linalg.vector_norm(centre - mean) + torch.linalg.vector_norm(spread - variance)
    return gap


def total_variation(images: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels, summed over the four directions.

    Args:
        images: (B, C, H, W).

    Returns:
        A scalar.
    """
    return (
        (images[..., 1:, :] - images[..., :-1, :]).square().mean()
        + (images[..., 1:] - images[..., :-1]).square().mean()
        + (images[..., 1:, 1:] - images[..., :-1, :-1]).square().mean()
        + (images[..., 1:, :-1] - images[..., :-1, 1:]).square().mean()
    )
