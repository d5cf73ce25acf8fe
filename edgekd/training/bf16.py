"""Whether a network still says the same in bf16: measured on validation images once, when its checkpoint is made."""

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
    """fp32 and bf16 answers to the same images, 2,048 at most; None where this machine or this network has no bf16.

    Returns:
        images, agreement (share of equal top-1 answers), accuracy in each, milliseconds a batch in each, and `keeps`:
        at least 99.5 % agreement, and at most 0.1 points of accuracy (or one image) lost.
    """
    if resolve_precision("auto", model, device, inference=True) == "fp32":
        return None
    model.eval()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, same = 0, 0
    right, seconds = {"fp32": 0, "bf16": 0}, {"fp32": 0.0, "bf16": 0.0}
    batches = 0
    for batch in loader.epoch(0):
        answers: dict[str, Tensor] = {}
        for precision in ("fp32", "bf16"):
            answers[precision], spent = _ask(model, batch, precision, device, loader.classes)
            right[precision] += int((answers[precision] == batch.targets).sum())
            seconds[precision] += spent
        same += int((answers["fp32"] == answers["bf16"]).sum())
        images, batches = images + len(batch.targets), batches + 1
        if images >= _IMAGES:
            break
    agreement, lost = same / images, (right["fp32"] - right["bf16"]) / images
    return {
        "images": images,
        "agreement": agreement,
        "accuracy": {precision: right[precision] / images for precision in right},
        "batch_ms": {precision: round(1e3 * seconds[precision] / batches, 3) for precision in seconds},
        "keeps": agreement >= _LEAST_AGREEMENT and lost <= max(_LARGEST_LOSS, 1 / images),
    }


def answering(
    checkpoint: Checkpoint, model: nn.Module, device: torch.device, wanted: Precision = "auto"
) -> tuple[Literal["fp32", "bf16"], str]:
    """In which precision a checkpoint's network answers on this machine, and why.

    Raises:
        UsageError: bf16 is asked for by name, and the GPU or a network with int8 quantizers cannot.
    """
    if wanted != "auto":
        return resolve_precision(wanted, model, device, inference=True), "as the recipe says"
    if resolve_precision("auto", model, device, inference=True) == "fp32":
        return "fp32", "no bf16 here, or int8 quantizers"
    found = checkpoint.metrics.get("bf16")
    if found is None:
        return "fp32", "bf16 was not compared with fp32 when it was made"
    if not found["keeps"]:
        return "fp32", f"in bf16 it agrees with itself in fp32 on {100 * found['agreement']:.2f} % of the answers only"
    if device.type == "cpu" and found["batch_ms"]["bf16"] > found["batch_ms"]["fp32"]:
        return "fp32", "bf16 is slower for this network"
    return "bf16", f"bf16 agrees with fp32 on {100 * found['agreement']:.2f} % of the answers"


def _ask(
    model: nn.Module, batch: Batch, precision: Literal["fp32", "bf16"], device: torch.device, classes: int | None
) -> tuple[Tensor, float]:
    start = time.perf_counter()
    with autocast(precision, device):
        answers: Tensor = model(batch.images)[:, :classes].argmax(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return answers, time.perf_counter() - start
