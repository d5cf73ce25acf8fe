"""Int8: post-training quantization (PTQ), then quantization-aware distillation (QAD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.distillation.distill import TeacherSetup, distill, networks_for
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import build_terms
from edgekd.errors import ModelError, summary
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.edits.quantize import calibration_of
from edgekd.quantization.calibration import AUTO
from edgekd.quantization.float_layers import ON_REQUEST, matching
from edgekd.quantization.placement import activation_quantizers, folded, observe, place
from edgekd.recipe.settings import QuantizeSettings
from edgekd.runs import Role, Run, Stage, Untrained, settings_json
from edgekd.runtime.preprocess import InputShape
from edgekd.stages import _calibrated as calibration
from edgekd.stages import _facts
from edgekd.stages._qad import freezing, schedule, schedule_facts
from edgekd.stages.distill import Continuation
from edgekd.stages.mixed import kept_facts, sensitive_in_float
from edgekd.stages.reparameterize import as_compressed
from edgekd.store.plan import is_pending
from edgekd.training.fit import Progress
from edgekd.training.train import TrainingSetup
from edgekd.wording import counted


@dataclass(frozen=True)
class Quantized:
    """A network with int8 quantizers: calibrated only, and as it ships. With mode ptq both are the same."""

    calibrated: Checkpoint
    trained: Checkpoint


def _check(untrained: Untrained) -> None:
    """Raises ModelError, DataError or UsageError where the student cannot be quantized as the recipe asks."""
    settings, student = untrained.recipe.quantize, as_compressed(untrained.student)
    assert settings is not None
    quantized = check(
        student, settings.calibration_images, untrained.training_images, untrained.shape, settings.kept_in_float
    )
    if settings.objective is not None:
        build_terms(settings.objective, networks_for(quantized, untrained.teacher or student, untrained.data))


def _calibrated_facts(checkpoint: Checkpoint) -> list[str]:
    metrics = checkpoint.metrics
    images, values = metrics["calibration_images"], metrics["quantized_values"]
    methods = ", ".join(f"{count:,} by {method}" for method, count in metrics["calibration_methods"].items())
    folded = metrics["constant_channels"]
    constant = [f"{counted(folded, 'channel')} without an effect of the image folded into biases"] if folded else []
    return [
        f"{images:,} training images (calibration {metrics['calibration_set'][:12]})",
        f"{values:,} values quantized ({methods})",
        *constant,
        *kept_facts(checkpoint),
        *_facts.network_facts(checkpoint)[:1],
    ]


def _trained_facts(checkpoint: Checkpoint) -> list[str]:
    # A calibrated network (mode: ptq) has none, nor has one of several heads.
    known = checkpoint.metrics.get("schedule")
    return [*_facts.network_facts(checkpoint), *(schedule_facts(known) if known is not None else [])]


CALIBRATE = Stage("calibrate", "Calibrated for int8", version=7, section="quantize", facts=_calibrated_facts)
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
        settings={
            "images": settings.calibration_images,
            "method": settings.calibration,
            "learned": settings.learned,
            "keep_float": list(settings.kept_in_float),
        },
        inputs={"student": student, "data": continuation.data},
        make=lambda out: calibrate(
            student,
            continuation.data,
            settings.calibration_images,
            out,
            method=settings.calibration,
            keep=settings.kept_in_float,
            learned=settings.learned,
            progress=run.progress(CALIBRATE.name),
        ),
    )
    calibrated = sensitive_in_float(run, student, calibrated, continuation.data)
    if not is_pending(calibrated):
        require_fresh(calibrated, student)
        # Only now: operations that stay in float may have mended it.
        run.warn(calibration.lost_much(student, calibrated, continuation.data, settings))
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
            **settings_json(settings, exclude={"mode", "calibration_images", "calibration", "keep_float", "baseline"}),
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
    keep: Sequence[str] = (),
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
        keep: paths of layers and blocks that stay in float, or patterns; see edgekd.quantization.float_layers.
        learned: whether a training that follows also trains the scales.
        progress: called with (images done, images in total, what is done).

    Raises:
        ModelError: the network cannot be traced, is quantized already, computes what is not finite, or has no layer of
            one of these names.
        DataError: too few images to calibrate on.
    """
    found = calibration.calibrated(student, data, images, method=method, keep=keep, learned=learned, progress=progress)
    quantized = found.made.quantized
    kept = {name: why for name, why in quantized.left_in_float.items() if why == ON_REQUEST}
    return calibration.save(found, quantized, kept, {}, out)


def check(network: nn.Module, images: int, available: int, shape: InputShape, keep: Sequence[str] = ()) -> nn.Module:
    """Check before any training that calibrate() will accept a network.

    Args:
        network: the untrained student.
        images: the number of calibration images that the recipe asks for.
        available: the number of images in the training split.
        shape: of the input.
        keep: as calibrate().

    Returns:
        A copy with quantizers that have seen one batch, of zeros.

    Raises:
        ModelError, DataError: as calibrate().
    """
    calibration.enough(images, available)
    own = folded(network)
    quantized = place(own, matching(keep, own)).model
    if not activation_quantizers(quantized):
        raise ModelError(
            "nothing of the network would be in int8",
            found=f"quantize.keep_float names {', '.join(keep)}" if keep else "no operation that has an int8 form",
            hint="name fewer operations in quantize.keep_float" if keep else "remove the quantize section",
        )
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
