"""Compares predictions in bf16 with those in fp32, on validation images, once when a checkpoint is made."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch, Loader
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import Precision
from edgekd.store.artifacts import Json
from edgekd.training.host import autocast, resolve_precision

_IMAGES = 2048
_LEAST_AGREEMENT = 0.995
_LARGEST_LOSS = 0.001


@torch.no_grad()
def compare(model: nn.Module, loader: Loader, device: torch.device) -> Json | None:
    """Compare a network's predictions in fp32 and bf16 on at most 2,048 images.

    Args:
        model: the network.
        loader: the images.
        device: where it runs.

    Returns:
        images, agreement (fraction of equal predictions: the most probable class, or with several labels per image all
        classes of more than one half), the correct fraction in each, milliseconds per batch in each, and `keeps`: at
        least 99.5 % agreement, and at most 0.1 points of accuracy (or one image) lost. None where the machine or the
        network cannot use bf16.
    """
    if resolve_precision("auto", model, device, inference=True) == "fp32":
        return None
    model.eval()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, same = 0, 0
    correct, seconds = {"fp32": 0, "bf16": 0}, {"fp32": 0.0, "bf16": 0.0}
    batches = 0
    for batch in loader.epoch(0):
        predictions: dict[str, Tensor] = {}
        for precision in ("fp32", "bf16"):
            predictions[precision], spent = _predictions(model, batch, precision, device, loader)
            correct[precision] += int(_rows_equal(predictions[precision], batch.targets).sum())
            seconds[precision] += spent
        same += int(_rows_equal(predictions["fp32"], predictions["bf16"]).sum())
        images, batches = images + len(batch.targets), batches + 1
        if images >= _IMAGES:
            break
    agreement, lost = same / images, (correct["fp32"] - correct["bf16"]) / images
    return {
        "images": images,
        "agreement": agreement,
        "correct": {precision: correct[precision] / images for precision in correct},
        "batch_ms": {precision: round(1e3 * seconds[precision] / batches, 3) for precision in seconds},
        "keeps": agreement >= _LEAST_AGREEMENT and lost <= max(_LARGEST_LOSS, 1 / images),
    }


def inference_precision(
    checkpoint: Checkpoint, model: nn.Module, device: torch.device, wanted: Precision = "auto"
) -> tuple[Literal["fp32", "bf16"], str]:
    """The precision for a checkpoint's forward pass on this machine, and the reason.

    Args:
        checkpoint: whose metrics have the comparison.
        model: its network.
        device: where it runs.
        wanted: the recipe's setting.

    Raises:
        UsageError: the recipe sets bf16, which the GPU does not support, or the network has int8 quantizers.
    """
    if wanted != "auto":
        return resolve_precision(wanted, model, device, inference=True), "set in the recipe"
    if resolve_precision("auto", model, device, inference=True) == "fp32":
        return "fp32", "bf16 is not supported here, or the network has int8 quantizers"
    found = checkpoint.metrics.get("bf16")
    if found is None:
        return "fp32", "bf16 was not compared with fp32 when the checkpoint was made"
    if not found["keeps"]:
        return "fp32", f"bf16 agrees with fp32 on only {100 * found['agreement']:.2f} % of the predictions"
    if device.type == "cpu" and found["batch_ms"]["bf16"] > found["batch_ms"]["fp32"]:
        return "fp32", "bf16 is slower for this network"
    return "bf16", f"bf16 agrees with fp32 on {100 * found['agreement']:.2f} % of the predictions"


def _predictions(
    model: nn.Module, batch: Batch, precision: Literal["fp32", "bf16"], device: torch.device, loader: Loader
) -> tuple[Tensor, float]:
    start = time.perf_counter()
    with autocast(precision, device):
        logits: Tensor = model(batch.images)[:, : loader.classes]
        predictions = (logits > 0).long() if loader.multilabel else logits.argmax(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return predictions, time.perf_counter() - start


def _rows_equal(one: Tensor, other: Tensor) -> Tensor:
    """(B,), whether the predictions of an image are equal."""
    return (one == other).reshape(len(one), -1).all(1)
