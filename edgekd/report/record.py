"""The content of a report: plain JSON, kept as report.json, from which the page can be rendered again.

Accuracies, agreements and intervals are fractions (0 to 1), latencies are in milliseconds, sizes in bytes.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from edgekd.bench.measurement import Provenance
from edgekd.bench.turns import Turns
from edgekd.data.findings import Broken, LabelledImage, Leaks
from edgekd.errors import ArtifactError
from edgekd.report.model_record import ModelEntry
from edgekd.report.verdict import Verdict
from edgekd.store.artifacts import Json
from edgekd.store.records import Count, Frozen, Share, Span, Time

DataUri = Annotated[str, Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*$")]


class Data(Frozen):
    """The data set after cleaning; `counts` are the images in each split."""

    source: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    counts: dict[str, Count]
    leaks: Leaks
    duplicates: dict[str, Count]
    conflicting_labels: Count
    conflicts: tuple[tuple[LabelledImage, ...], ...] = ()
    broken: Broken
    left_out: str = ""
    measure: Literal["accuracy", "agreement", "mAP"] = "accuracy"


class Stage(Frozen):
    """One stage of the chain: `seconds` is how long making its artifact took, `facts` describe the artifact."""

    name: str
    title: str
    state: Literal["run", "reused"]
    seconds: Span
    facts: tuple[str, ...] = ()


class RoleEntry(Frozen):
    """The mark of a role's networks, its text in the legend, and its part in comparisons."""

    legend: str
    shape: Literal["disc", "square", "diamond", "triangle-up", "triangle-down", "cross", "star"]
    colour: Literal["ink", "grey", "accent", "blue", "purple", "ochre", "magenta"]
    part: Literal["teacher", "baseline", "calibrated", "quantized", "network"]


class Tolerance(Frozen):
    """`difference` is relative to the largest logit."""

    difference: Span
    agreement: Share


class NumericsEntry(Frozen):
    """The deviation of a file's logits from its reference's on real images, relative to the largest logit."""

    model: str
    reference: str
    max_difference: Span
    mean_difference: Span
    largest_logit: Span
    agreement: Share
    tolerance: Tolerance
    images: Count
    near_ties: Count = 0
    agreement_of_all: Share | None = None
    unstable: Span | None = None

    @property
    def within(self) -> bool:
        close = self.max_difference <= self.tolerance.difference
        return close and self.agreement >= self.tolerance.agreement


class Epoch(Frozen):
    epoch: Count
    loss: float
    validation_accuracy: Share | None = None
    validation_agreement: Share | None = None
    validation_mAP: Share | None = None

    @property
    def score(self) -> float | None:
        scores = (self.validation_accuracy, self.validation_agreement, self.validation_mAP)
        return next((score for score in scores if score is not None), None)


class Training(Frozen):
    role: str
    title: str
    epochs: tuple[Epoch, ...]


class Width(Frozen):
    """A layer's output channels before and after pruning."""

    layer: str
    before: Count
    after: Count


class PrunedLatency(Frozen):
    """Before and after pruning, measured in turns, of one image in fp32; see edgekd.bench.interleaved.Comparison."""

    milliseconds: tuple[float, float]
    ratios: tuple[float, float]
    spread: tuple[float, float]
    backend: str
    rounds: int
    device: str


class SensitivityCurve(Frozen):
    """What cutting one part costs; see edgekd.pruning.sensitivity.Curve."""

    layers: tuple[str, ...]
    channels: int
    shares: tuple[Share, ...]
    errors: tuple[float, ...]
    lost: tuple[float, ...] | None


class Pruning(Frozen):
    """The result of pruning; `kept` and `target` are fractions of `measure`.

    `whole`: layers that could not be narrowed, with the reason; `sensitivity`: where the shares follow it.
    """

    measure: Literal["macs", "parameters", "latency", "size"]
    importance: Literal["group-norm", "magnitude", "batch-norm", "taylor"]
    shares: Literal["uniform", "global", "sensitivity"]
    target: Share
    kept: Share
    multiple: Annotated[int, Field(gt=0)]
    before: dict[str, Count]
    after: dict[str, Count]
    widths: tuple[Width, ...]
    whole: dict[str, str] = {}
    latency: PrunedLatency | None = None
    sensitivity: tuple[SensitivityCurve, ...] = ()


class Drop(Frozen):
    """A loss of the validation score, with its 95 % interval."""

    value: float
    low: float
    high: float


class OperationSensitivity(Frozen):
    """What int8 costs at one operation; see edgekd.quantization.sensitivity.Sensitivity."""

    name: str
    error: Span
    lost: float | None


class Mixed(Frozen):
    """The search for what has to stay in float; see edgekd.stages.mixed."""

    measure: Literal["accuracy", "agreement", "mAP"]
    allowed: Share
    images: Count
    before: Drop
    after: Drop
    kept: tuple[str, ...]
    met: bool
    sensitivity: tuple[OperationSensitivity, ...]


class Quantization(Frozen):
    """The result of quantization.

    Attributes:
        calibration_set: the name of edgekd.quantization.calibration_set.
        operations: how many the network has.
        left_in_float: the operations without quantizers, with the reason.
        mixed: where int8 lost too much, so that it was looked for what has to stay in float.
    """

    mode: Literal["qad", "ptq"]
    calibration_images: Count
    calibration_set: str
    quantized_values: Count
    operations: Count
    left_in_float: dict[str, str]
    mixed: Mixed | None = None


class EngineOrder(Frozen):
    """The bundle's variants in the order in which an engine prefers them.

    `machine` is the kind of machine that the order is for; None: any that has no order of its own. `reason`: in words,
    without the last full stop; `turns`: the latencies that a measured order rests on.
    """

    engine: str
    title: str
    machine: str | None
    variants: tuple[str, ...]
    reason: str
    turns: Turns | None = None


class LegalityFinding(Frozen):
    """`node` is empty where a finding concerns the whole graph."""

    level: Literal["error", "warning"]
    node: str
    message: str


class LegalityEntry(Frozen):
    """Whether a TensorRT version can parse a file, judged by its graph; nothing was built."""

    model: str
    version: str
    jetpack: str
    legal: bool
    note: str
    findings: tuple[LegalityFinding, ...]


class Latency(Frozen):
    min: Span
    mean: Span
    p50: Time
    p90: Time
    p95: Time
    p99: Time
    max: Span
    std: Span


class MeasuredAt(NamedTuple):
    """Where a latency was measured."""

    device: str
    engine: str
    threads: int
    emulated: bool


class MeasurementEntry(Frozen):
    """One benchmark: a model on a device with an engine, at one batch size."""

    model: str
    device: str
    provenance: Provenance
    engine: str
    batch_size: Annotated[int, Field(gt=0)]
    threads: Count
    latency_ms: Latency
    samples_ms: tuple[Span, ...]
    throughput_per_s: Span
    load_ms: Span
    first_inference_ms: Span
    peak_bytes: Count | None
    flags: tuple[str, ...]

    @property
    def emulated(self) -> bool:
        """Whether a program computed the processor's instructions: then the latency is that of no hardware."""
        return self.provenance == "emulated"

    @property
    def place(self) -> MeasuredAt:
        """What must be equal for two latencies to be comparable."""
        return MeasuredAt(self.device, self.engine, self.threads, self.emulated)


class NotRun(Frozen):
    what: str
    why: str


class BundleFile(Frozen):
    name: str
    size_bytes: Count
    note: str


class BundleEntry(Frozen):
    path: str
    files: tuple[BundleFile, ...]


class Record(Frozen):
    """Everything that the page shows.

    Attributes:
        created: ISO time.
        recipe: YAML text.
        unmeasured: for each variant that is not measured where others are, the reason.
        loaded: the model that edgekd.runtime.load uses on this machine.
        images: small ones of the mistakes of the models that ship, by their index in the test split.
        left_out: the variants of the bundle whose graphs could not be made; the warnings have the reasons.
        budget: None where the recipe has none.
    """

    title: str
    created: str
    command: str
    edgekd: str
    recipe: str
    data: Data
    stages: tuple[Stage, ...]
    roles: dict[str, RoleEntry]
    models: tuple[ModelEntry, ...]
    numerics: tuple[NumericsEntry, ...]
    training: tuple[Training, ...]
    pruning: Pruning | None
    quantization: Quantization | None
    legality: tuple[LegalityEntry, ...]
    engines: tuple[EngineOrder, ...]
    unmeasured: dict[str, str] = {}
    loaded: str | None = None
    images: dict[int, DataUri] = {}
    measurements: tuple[MeasurementEntry, ...]
    environment: dict[str, str | int | float | None]
    not_run: tuple[NotRun, ...]
    bundle: BundleEntry | None
    warnings: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    budget: Verdict | None = None

    @model_validator(mode="after")
    def _known_models(self) -> Record:
        ids = [model.id for model in self.models]
        if len(set(ids)) < len(ids):
            raise ValueError("two models have the same id")
        named = {entry.model for entry in self.numerics} | {entry.model for entry in self.measurements}
        named |= {entry.model for entry in self.legality} | ({self.loaded} if self.loaded is not None else set())
        named |= self.budget.models if self.budget is not None else set()
        shown = {model.role for model in self.models} | {each.role for each in self.training}
        if unmarked := shown - set(self.roles):
            raise ValueError(f"no such role: {', '.join(sorted(unmarked))}")
        if unknown := named - set(ids):
            raise ValueError(f"no such model: {', '.join(sorted(unknown))}")
        return self

    def part(self, model: ModelEntry) -> str:
        """What a model is in comparisons: its role's part."""
        return self.roles[model.role].part

    def model(self, model_id: str) -> ModelEntry:
        return next(model for model in self.models if model.id == model_id)


def parse(value: Json, origin: object = "the report's record") -> Record:
    """A checked record.

    Args:
        value: the content of a report.json.
        origin: where it comes from, for the message.

    Raises:
        ArtifactError: a key is missing or unknown, or its value has the wrong type.
    """
    try:
        return Record.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'record'}: {p['msg']}" for p in error.errors()]
        raise ArtifactError(
            f"{origin} is not a valid record of a report",
            found="; ".join(problems[:5]),
            hint="it may be of another version: run the recipe again, which reuses finished stages",
        ) from None
