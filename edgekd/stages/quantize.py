"""Int8: post-training quantization (PTQ), then quantization-aware distillation (QAD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.data.sources import Labels
from edgekd.distillation.distill import TeacherSetup, distill, networks_for
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import build_terms
from edgekd.errors import DataError, ModelError, summary
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.quantize import VERSION as PLACEMENT
from edgekd.models.edits.quantize import calibration_of
from edgekd.quantization.calibration import AUTO
from edgekd.quantization.calibration_set import CalibrationSet, ImagesDigest, graph_digest
from edgekd.quantization.constant_channels import ConstantChannels
from edgekd.quantization.equalize import Equalization
from edgekd.quantization.placement import insert, observe
from edgekd.quantization.post_training import EXAMPLES, post_training
from edgekd.recipe.settings import QuantizeSettings
from edgekd.runs import Role, Run, Stage, Untrained, part_of, settings_json
from edgekd.runtime.preprocess import InputShape
from edgekd.stages import _facts
from edgekd.stages._qad import freezing, schedule, schedule_facts
from edgekd.stages.distill import Continuation
from edgekd.stages.reparameterize import as_compressed
from edgekd.store.plan import is_pending
from edgekd.training.fit import Progress, score
from edgekd.training.host import best_device
from edgekd.training.train import TrainingSetup, evaluation_loader
from edgekd.wording import counted

LEAST_IMAGES = 16
_BATCH = 32
_CHOSEN = "spread evenly over the classes and the training split"


@dataclass(frozen=True)
class Quantized:
    """A network with int8 quantizers: calibrated only, and as it ships. With mode ptq both are the same."""

    calibrated: Checkpoint
    trained: Checkpoint


def _check(untrained: Untrained) -> None:
    """Raises ModelError, DataError or UsageError where the student cannot be quantized as the recipe asks."""
    settings, student = untrained.recipe.quantize, as_compressed(untrained.student)
    assert settings is not None
    quantized = check(student, settings.calibration_images, untrained.training_images, untrained.shape)
    if settings.objective is not None:
        build_terms(settings.objective, networks_for(quantized, untrained.teacher or student, untrained.data))


def _calibrated_facts(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    images, values = metrics["calibration_images"], metrics["quantized_values"]
    methods = ", ".join(f"{count:,} by {method}" for method, count in metrics["calibration_methods"].items())
    folded = metrics["constant_channels"]
    constant = [f"{counted(folded, 'channel')} without an effect of the image folded into biases"] if folded else []
    return [
        f"{images:,} training images (set {metrics['calibration_set'][:12]})",
        f"{values:,} values quantized ({methods})",
        *constant,
        *_facts.network_facts(checkpoint)[:1],
    ]


def _trained_facts(checkpoint: Checkpoint) -> list[str]:
    # A calibrated network (mode: ptq) has none, nor has one of several heads.
    known = checkpoint.metrics.get("schedule")
    return [*_facts.network_facts(checkpoint), *(schedule_facts(known) if known is not None else [])]


CALIBRATE = Stage("calibrate", "Calibrated for int8", version=6, section="quantize", facts=_calibrated_facts)
STAGE = Stage(
    "quantize",
    "Quantization-aware distilled",
    version=3,
    section="quantize",
    example="{mode: qad}",
    facts=_trained_facts,
    check=_check,
)

PTQ = Role(
    "ptq",
    "Quantized without training",
    "quantized without training (PTQ)",
    shape="cross",
    colour="ochre",
    part="calibrated",
)
QUANTIZED = Role("quantized", "Quantized", "quantized", shape="star", colour="magenta", part="quantized")


def quantize(run: Run, student: Checkpoint, continuation: Continuation) -> Quantized | None:
    """Quantize the student; None where the recipe has no quantize section.

    Args:
        student: the float network.
        continuation: how it is trained through its quantizers.

    Raises:
        ModelError, DataError: as calibrate() and require_fresh().
        TrainingError: see edgekd.training.fit.
    """
    settings = run.recipe.quantize
    if settings is None:
        return run.finish(STAGE, None)
    calibrated = run.stage(
        CALIBRATE,
        Checkpoint,
        settings={"images": settings.calibration_images, "method": settings.calibration, "learned": settings.learned},
        inputs={"student": student, "data": continuation.data},
        make=lambda out: calibrate(
            student,
            continuation.data,
            settings.calibration_images,
            out,
            method=settings.calibration,
            learned=settings.learned,
            progress=run.progress(CALIBRATE.name),
        ),
    )
    if not is_pending(calibrated):
        require_fresh(calibrated, student)
    result = Quantized(calibrated, trained(run, calibrated, settings, continuation))
    return run.finish(STAGE, result, result.trained)


def require_fresh(calibrated: Checkpoint, student: Checkpoint) -> None:
    """Raises ModelError where a checkpoint does not state that it was calibrated for this float network."""
    record = calibration_of(calibrated.details.architecture)
    if record is None:
        raise ModelError(
            f"{calibrated.path} does not state what it was calibrated on",
            hint="calibrate the float network again: `edgekd quantize`",
        )
    record.require_network(student.digest, owner=calibrated.path)


def trained(run: Run, calibrated: Checkpoint, settings: QuantizeSettings, continuation: Continuation) -> Checkpoint:
    """The network trained through its quantizers; with mode ptq the calibrated network unchanged.

    The activations' scales stay as calibrated, or move for the first epochs and are fixed for the rest. Gradients use
    the straight-through estimator (Jacob et al. 2018, section 3).
    """
    if settings.mode == "ptq":
        return calibrated
    freeze_scales = freezing(settings)
    if continuation.train is not None:
        key = {"scales": settings.scales, "freeze_after": settings.freeze_after}
        return continuation.train(STAGE, calibrated, settings, key=key, begin_epoch=freeze_scales)
    objective, augment = settings.objective or continuation.objective, run.recipe.data.augment
    guide = TeacherSetup(continuation.teacher, settings.teacher_precision)
    teaching = run.recipe.distill

    def make(out: Path) -> Checkpoint:
        notes = {"schedule": schedule(settings, teaching, continuation.data.details.counts["train"])}
        setup = TrainingSetup(settings, augment, run.progress(STAGE.name), freeze_scales, notes)
        return distill(calibrated, guide, objective, continuation.data, setup, out)

    return run.stage(
        STAGE,
        Checkpoint,
        settings={
            **settings_json(settings, exclude={"mode", "calibration_images", "calibration", "baseline"}),
            "objective": objective_json(objective),
            "augment": settings_json(augment),
            # What the manifest states of the schedule.
            "distill": {"epochs": teaching.epochs, "learning_rate": teaching.learning_rate},
        },
        inputs={"teacher": continuation.teacher, "calibrated": calibrated, "data": continuation.data},
        make=make,
    )


def calibrate(
    student: Checkpoint,
    data: Dataset,
    images: int,
    out: Path,
    *,
    method: str = AUTO,
    learned: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Put int8 quantizers into a trained network and calibrate their scales on images: post-training quantization.

    Args:
        student: the float network.
        data: whose training images are used.
        images: the number of training images, spread evenly over the classes and the split, not augmented.
        out: an empty folder, which becomes the checkpoint.
        method: of calibration; see edgekd.quantization.calibrators.
        learned: whether a training that follows also trains the scales.
        progress: called with (images done, images in total, what is done).

    Raises:
        ModelError: the network cannot be traced, is quantized already, or computes what is not finite.
        DataError: too few images to calibrate on.
    """
    reader, seen = open_reader(data, "train"), ImagesDigest()
    count = _enough(images, len(reader))
    chosen = spread(reader.split.labels, count)
    shown = replace(reader, shown=part_of(progress, 0, 1, "images"))
    made = post_training(
        checkpoints.load(student),
        torch.from_numpy(reader.inputs(chosen[:: -(-count // EXAMPLES)])),
        map(torch.from_numpy, seen.passing(inputs for inputs, _ in shown.batches(np.sort(chosen), size=_BATCH))),
        method,
        learned=learned,
    )
    network = made.quantized.model
    calibration = CalibrationSet(
        images=seen.hexdigest(),
        count=count,
        chosen=_CHOSEN,
        method=method,
        network=student.digest,
        graph=graph_digest(network),
    )
    device = best_device()
    network.to(device)
    value = score(network, evaluation_loader(data, "validation"), device)
    return checkpoints.save(
        network.cpu(),
        student.details.architecture.edited(
            {
                "edit": "quantize",
                "version": PLACEMENT,
                **({"learned": True} if learned else {}),
                "calibration": calibration.model_dump(mode="json"),
            }
        ),
        preprocessing=reader.preprocessing,
        classes=student.classes,
        out=out,
        training=student.details.training,
        metrics={
            f"validation_{data.measure}": value,
            "calibration_images": count,
            "calibration_set": calibration.name,
            "quantized_values": len(made.quantized.placed),
            "left_in_float": list(made.quantized.left_in_float),
            "constant_channels": made.constants.channels,
            "equalized_channels": made.equalized.channels,
            "calibration_methods": made.methods,
            "corrected_biases": made.corrected,
            "warnings": [
                *_one_sided(data, reader.split.labels[chosen]),
                *_unmoved(made.moves),
                *_float_layers(made.quantized.left_in_float),
                *_refused(made.constants, made.equalized),
            ],
        },
    )


def check(network: nn.Module, images: int, available: int, shape: InputShape) -> nn.Module:
    """Check before any training that calibrate() will accept a network.

    Args:
        network: the untrained student.
        images: the number of calibration images that the recipe asks for.
        available: the number of images in the training split.
        shape: of the input.

    Returns:
        A copy with quantizers that have seen one batch, of zeros.

    Raises:
        ModelError, DataError: as calibrate().
    """
    _enough(images, available)
    quantized = insert(network).model
    observe(quantized)
    try:
        with torch.no_grad():
            quantized(torch.zeros(2, *shape))
    # The network's own code runs here, which may raise anything.
    except Exception as error:
        raise ModelError(
            f"{type(network).__name__} cannot be quantized: its forward() fails with quantizers in place",
            found=summary(error),
            hint="remove the quantize section, or choose another student",
        ) from error
    return quantized.eval()


def spread(labels: Labels, count: int) -> Labels:
    """Of a split, rows of so many images, ordered by class and spread evenly over that order.

    Args:
        labels: (N,), or (N, C) of images with several labels, whose rows are spread over the split's own order.
        count: at most N.
    """
    order = np.argsort(labels, kind="stable") if labels.ndim == 1 else np.arange(len(labels))
    return order[np.linspace(0, len(labels) - 1, count).astype(np.int64)]


def _enough(images: int, available: int) -> int:
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


def _unmoved(moves: bool) -> list[str]:
    if moves:
        return []
    return [
        "The network gives the same output for every calibration image: int8 cannot be judged on it. "
        "Check its accuracy and its weights before they are quantized."
    ]


def _float_layers(left: Sequence[str]) -> list[str]:
    if not left:
        return []
    named = ", ".join(left[:5]) + ("…" if len(left) > 5 else "")
    return [f"{len(left)} of the network's operations stay in float: {named}"]


def _refused(constants: ConstantChannels, equalized: Equalization) -> list[str]:
    lines = []
    if constants.refused is not None:
        lines.append(f"Constant channels were not folded before calibration: {constants.refused}")
    if equalized.refused is not None:
        lines.append(f"The channels were not equalized before calibration: {equalized.refused}")
    return lines
