"""What a checkpoint's manifest holds of measurements: those that stages and the report read by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekd.store.records import Count, Measured, Metrics, Share, Span, Time


class Epoch(Measured):
    """One epoch of the training; see edgekd.training.state.EpochRecord."""

    epoch: Count
    loss: float
    validation_accuracy: Share | None = None
    validation_agreement: Share | None = None
    validation_mAP: Share | None = None


class Bf16(Measured):
    """See edgekd.training.bf16.compare()."""

    keeps: bool
    agreement: Share
    batch_ms: dict[Literal["fp32", "bf16"], Span]


class Calibration(Measured):
    """See edgekd.distillation.teachers.Calibration."""

    ece: Share
    nll: Span
    nll_calibrated: Span
    temperature: Time | None
    soft_from: Time
    soft_to: Time


class Folded(Measured):
    """See edgekd.stages.reparameterize. Of the convolutions and the norms: how many before, how many after."""

    convolutions: tuple[Count, Count]
    norms: tuple[Count, Count]
    difference: Span
    images: Count


class Width(Measured):
    layer: str
    before: Count
    after: Count


class Drop(Measured):
    """A loss of the validation score, with its 95 % interval."""

    value: float
    low: float
    high: float


class OperationSensitivity(Measured):
    """See edgekd.quantization.sensitivity.Sensitivity."""

    name: str
    error: Span
    lost: float | None


class Mixed(Measured):
    """See edgekd.stages.mixed. `before`: with everything in int8; `after`: with `kept` in float."""

    measure: Literal["accuracy", "agreement", "mAP"]
    allowed: Share
    images: Count
    before: Drop
    after: Drop
    kept: tuple[str, ...]
    met: bool
    sensitivity: tuple[OperationSensitivity, ...]


class CheckpointMetrics(Metrics):
    """Every checkpoint has `parameters` and `macs`, per image; the others depend on the stage that made it.

    A default means that the metric may be missing; its value is not read.

    Attributes:
        history: the training, by epoch.
        branches: whether it has some that can be folded.
        kept, target: of a pruned network, fractions of `measure`; see edgekd.pruning.checkpoint.
        calibration_images and all after it: of a network with quantizers.
    """

    parameters: Count
    macs: Count
    history: tuple[Epoch, ...] = ()
    validation_accuracy: Share = 0.0
    validation_agreement: Share = 0.0
    validation_mAP: Share = 0.0
    bf16: Bf16 | None = None
    calibration: Calibration | None = None
    branches: bool = False
    folded: Folded | None = None
    kept: Share = 1.0
    target: Share = 1.0
    measure: Literal["macs", "parameters", "latency", "size"] = "macs"
    multiple: Annotated[int, Field(gt=0)] = 1
    before: dict[str, Count] = {}
    widths: tuple[Width, ...] = ()
    whole: dict[str, str] = {}
    calibration_images: Count = 0
    calibration_set: str = ""
    quantized_values: Count = 0
    constant_channels: Count = 0
    calibration_methods: dict[str, Count] = {}
    operations: Count = 0
    left_in_float: dict[str, str] = {}
    mixed: Mixed | None = None
