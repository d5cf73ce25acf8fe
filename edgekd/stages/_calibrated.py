"""Calibration as two stages need it: on a data set's images, from and to a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.data.sources import Labels
from edgekd.errors import DataError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.quantize import edit_of
from edgekd.quantization.calibration_set import CalibrationSet, ImagesDigest, graph_digest
from edgekd.quantization.placement import Quantized
from edgekd.quantization.post_training import EXAMPLES, PostTraining, post_training
from edgekd.recipe.settings import QuantizeSettings
from edgekd.runs import part_of
from edgekd.store.artifacts import Json
from edgekd.training.fit import Progress, score
from edgekd.training.host import best_device
from edgekd.training.train import evaluation_loader

LEAST_IMAGES = 16
_BATCH = 32
# Of the validation images, lost by calibration.
_MUCH = 0.05
_CHOSEN = "spread evenly over the classes and the training split"


@dataclass(frozen=True)
class Calibrated:
    """A float checkpoint's network in int8, and what it was calibrated on.

    Attributes:
        student, data: the checkpoint, and whose training images were used.
        made: the network.
        method: that was asked for.
        images: the digest of the images.
        labels: (N,) or (N, C), theirs.
    """

    student: Checkpoint
    data: Dataset
    made: PostTraining
    method: str
    images: str
    labels: Labels


def calibrated(
    student: Checkpoint,
    data: Dataset,
    images: int,
    *,
    method: str,
    keep: Sequence[str] = (),
    learned: bool = False,
    progress: Progress | None = None,
) -> Calibrated:
    """Calibrate on training images. Args and Raises as edgekd.stages.quantize.calibrate()."""
    reader, seen = open_reader(data, "train"), ImagesDigest()
    count = enough(images, len(reader))
    chosen = spread(reader.split.labels, count)
    shown = replace(reader, shown=part_of(progress, 0, 1, "images"))
    made = post_training(
        checkpoints.load(student),
        torch.from_numpy(reader.inputs(chosen[:: -(-count // EXAMPLES)])),
        map(torch.from_numpy, seen.passing(inputs for inputs, _ in shown.batches(np.sort(chosen), size=_BATCH))),
        method,
        keep,
        learned=learned,
    )
    return Calibrated(student, data, made, method, seen.hexdigest(), reader.split.labels[chosen])


def save(found: Calibrated, quantized: Quantized, keep: Mapping[str, str], metrics: Json, out: Path) -> Checkpoint:
    """The checkpoint of a calibrated network, with its validation score and what stays in float.

    Args:
        found: the calibration.
        quantized: its network, or that with more of it in float.
        keep: the operations that are kept in float, by path, with the reason.
        metrics: further ones; "warnings" are added to.
        out: an empty folder, which becomes the checkpoint.
    """
    network, device, student = quantized.model, best_device(), found.student
    record = CalibrationSet(
        images=found.images,
        count=len(found.labels),
        chosen=_CHOSEN,
        method=found.method,
        network=student.digest,
        graph=graph_digest(network),
    )
    network.to(device)
    value = score(network, evaluation_loader(found.data, "validation"), device)
    left = {**quantized.left_in_float, **keep}
    edit = edit_of([name for name in left if name in keep], learned=found.made.learned, calibration=record)
    return checkpoints.save(
        network.cpu(),
        student.details.architecture.edited(edit),
        preprocessing=found.data.details.preprocessing,
        classes=student.classes,
        out=out,
        training=student.details.training,
        metrics={
            f"validation_{found.data.measure}": value,
            "calibration_images": record.count,
            "calibration_set": record.name,
            "calibration_methods": found.made.methods,
            "quantized_values": len(quantized.placed),
            "operations": quantized.operations,
            "left_in_float": left,
            "constant_channels": found.made.constants.channels,
            "equalized_channels": found.made.equalized.channels,
            "corrected_biases": found.made.corrected,
            **metrics,
            "warnings": [
                *_one_sided(found.data, found.labels),
                *_unmoved(found.made),
                *_float_layers(left, keep),
                *_refused(found.made),
                *metrics.get("warnings", ()),
            ],
        },
    )


def before_int8(student: Checkpoint, data: Dataset) -> float | None:
    """The float network's score on the validation images; None where it was not measured."""
    # What a network answers agrees with itself.
    score: float | None = student.metrics.get(f"validation_{data.measure}", 1.0 if data.details.answered else None)
    return score


def lost_much(student: Checkpoint, calibrated: Checkpoint, data: Dataset, settings: QuantizeSettings) -> list[str]:
    """A warning where the calibrated network is more than 5 points below the float one on the validation images."""
    before, after = before_int8(student, data), calibrated.metrics[f"validation_{data.measure}"]
    if before is None or before - after <= _MUCH:
        return []
    others = "auto" if settings.calibration != "auto" else "percentile, entropy or mse"
    remedies = [f"quantize.calibration: {others}"]
    remedies += ["quantize.keep_float: auto"] if settings.keep_float != "auto" else []
    remedies += ["quantize.mode: qad"] if settings.mode != "qad" else []
    return [
        f"Calibration for int8 cost {100 * (before - after):.1f} points of {data.measure} on the validation images, "
        f"from {before:.1%} to {after:.1%}. Try {', or '.join(remedies)}."
    ]


def spread(labels: Labels, count: int) -> Labels:
    """Of a split, rows of so many images, ordered by class and spread evenly over that order.

    Args:
        labels: (N,), or (N, C) of images with several labels, whose rows are spread over the split's own order.
        count: at most N.
    """
    order = np.argsort(labels, kind="stable") if labels.ndim == 1 else np.arange(len(labels))
    return order[np.linspace(0, len(labels) - 1, count).astype(np.int64)]


def enough(images: int, available: int) -> int:
    """The number of images to calibrate on. Raises DataError where there are too few."""
    if available < LEAST_IMAGES:
        found, hint = f"{available} in the training split", "add training images, or remove the quantize section"
    elif images < LEAST_IMAGES:
        found, hint = f"calibration_images: {images}", "raise quantize.calibration_images"
    else:
        return min(images, available)
    raise DataError(
        "too few images to calibrate int8 on",
        found=found,
        allowed=f"at least {LEAST_IMAGES}; a few hundred are usual",
        hint=hint,
    )


def _one_sided(data: Dataset, labels: Labels) -> list[str]:
    known = data.details.labelled and not data.multilabel and len(data.classes) > 1
    if not known or len(np.unique(labels)) > 1:
        return []
    named = data.classes[int(labels[0])]
    return [
        f"Int8 was calibrated on images of one class only, {named}: the ranges of the others are unknown. "
        "Add training images of them, or judge int8 by its accuracy for each class."
    ]


def _unmoved(made: PostTraining) -> list[str]:
    if made.moves:
        return []
    return [
        "The network gives the same output for every calibration image: int8 cannot be judged on it. "
        "Check its accuracy and its weights before they are quantized."
    ]


def _float_layers(left: Mapping[str, str], keep: Collection[str]) -> list[str]:
    """A warning of those that stay in float although nobody wanted it."""
    unwanted = [name for name in left if name not in keep]
    if not unwanted:
        return []
    named = ", ".join(unwanted[:5]) + ("…" if len(unwanted) > 5 else "")
    return [f"{len(unwanted)} of the network's operations stay in float: {named}"]


def _refused(made: PostTraining) -> list[str]:
    lines = []
    if made.constants.refused is not None:
        lines.append(f"Constant channels were not folded before calibration: {made.constants.refused}")
    if made.equalized.refused is not None:
        lines.append(f"The channels were not equalized before calibration: {made.equalized.refused}")
    return lines
