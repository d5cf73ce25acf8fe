"""The quantization stages: calibrated only (PTQ), and then trained through the quantizers (QAD)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekd.data.reader import open_reader
from edgekd.distillation.stage import distill
from edgekd.errors import DataError, ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.edits.quantize import VERSION as PLACEMENT
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.recipe.settings import AugmentSettings, QuantizeSettings, TermSettings
from edgekd.store.artifacts import Checkpoint, Dataset
from edgekd.training.fit import BeginEpoch, Progress, accuracy
from edgekd.training.host import best_device
from edgekd.training.stages import evaluation_loader

VERSION = 1
LEAST_IMAGES = 16
_BATCH = 32


def calibrate(student: Checkpoint, data: Dataset, images: int, out: Path) -> Checkpoint:
    """Put int8 quantizers into a trained network and fix their scales from images: post-training quantization.

    Args:
        images: how many of the training split, drawn evenly over it, not augmented.
        out: an empty folder, which becomes the checkpoint.

    Raises:
        ModelError: the network cannot be traced, or is quantized already.
        DataError: too few images to know the range of anything.
    """
    reader = open_reader(data, "train")
    count = _enough(images, len(reader))
    quantized = insert(checkpoints.load(student))
    network = quantized.model
    observe(network)
    chosen = np.linspace(0, len(reader) - 1, count).astype(np.int64)
    with torch.no_grad():
        for inputs, _ in reader.batches(chosen, size=_BATCH):
            network(torch.from_numpy(inputs))
    freeze(network)
    device = best_device()
    network.to(device)
    score = accuracy(network, evaluation_loader(data, "validation"), device)
    return checkpoints.save(
        network.cpu(),
        checkpoints.architecture_of(student).edited({"edit": "quantize", "version": PLACEMENT}),
        preprocessing=reader.preprocessing,
        classes=student.classes,
        out=out,
        training=student.manifest.details["training"],
        metrics={
            "validation_accuracy": score,
            "calibration_images": count,
            "quantized_values": len(quantized.placed),
            "left_in_float": list(quantized.left),
            "warnings": _float_layers(quantized.left),
        },
    )


def check(network: nn.Module, images: int, available: int, image_size: int) -> None:
    """What calibrate() would refuse, before anything is trained.

    Args:
        available: images in the training split.

    Raises:
        ModelError, DataError: as calibrate().
    """
    _enough(images, available)
    quantized = insert(network).model
    observe(quantized)
    try:
        with torch.no_grad():
            quantized(torch.zeros(2, 3, image_size, image_size))
    # The network's own code runs here, between quantizers, and that may raise anything.
    except Exception as error:
        raise ModelError(
            f"{type(network).__name__} cannot be quantized: it does not run with quantizers",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            hint="leave the quantize section out, or choose another student",
        ) from error


def _enough(images: int, available: int) -> int:
    """How many images to calibrate on."""
    if available < LEAST_IMAGES:
        found, hint = f"{available} in the training split", "add training images, or leave the quantize section out"
    elif images < LEAST_IMAGES:
        found, hint = f"calibration_images: {images}", "raise quantize.calibration_images"
    else:
        return min(images, available)
    raise DataError(
        "too few images to calibrate int8 on",
        found=found,
        allowed=f"at least {LEAST_IMAGES}; some hundred are usual",
        hint=hint,
    )


def quantize(
    teacher: Checkpoint,
    calibrated: Checkpoint,
    data: Dataset,
    settings: QuantizeSettings,
    out: Path,
    *,
    objective: Sequence[TermSettings],
    augment: AugmentSettings,
    progress: Progress | None = None,
) -> Checkpoint:
    """Quantization-aware distillation: train a calibrated network through its quantizers.

    Their scales follow the values for the first epochs and are fixed for the rest; the gradients go straight through
    (Jacob et al. 2018, section 3).

    Raises:
        ModelError, TrainingError: as distill().
    """
    return distill(
        teacher,
        calibrated,
        data,
        settings,
        out,
        objective=objective,
        augment=augment,
        teacher_precision=settings.teacher_precision,
        progress=progress,
        begin_epoch=freezing(settings),
    )


def freezing(settings: QuantizeSettings) -> BeginEpoch:
    """Fixes the scales for the later epochs.

    Never later than the last one: what is exported must have been trained with the scales that it has.
    """
    first = min(round(settings.epochs * settings.freeze_after), settings.epochs - 1)
    return partial(_freeze_from, first)


def _freeze_from(first: int, network: nn.Module, epoch: int) -> None:
    if epoch >= first:
        freeze(network)


def _float_layers(left: Sequence[str]) -> list[str]:
    if not left:
        return []
    named = ", ".join(left[:5]) + ("…" if len(left) > 5 else "")
    return [f"{len(left)} of the network's operations stay in float: {named}"]
