"""The recipe's settings, section by section. Light: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from edgekd import plugins
from edgekd.recipe.base import (
    LARGEST_WHOLE,
    ClassWeights,
    DeviceName,
    KeepFloat,
    Measure,
    NameOf,
    Positive,
    Precision,
    Ratio,
    Settings,
    Share,
    Task,
    VariantName,
)
from edgekd.recipe.budget_settings import BudgetSettings
from edgekd.recipe.data_settings import AugmentSettings, Data, DataSettings
from edgekd.recipe.distill_settings import (
    DEFAULT_OBJECTIVES,
    DistillSettings,
    OutputSettings,
    RecoverySettings,
    SchemeSettings,
    TeacherGuidedSettings,
    TermSettings,
)
from edgekd.recipe.model_settings import InputSettings, ModelSettings, TeacherSettings
from edgekd.recipe.prune_settings import PruneSettings, PruneTarget
from edgekd.recipe.training_settings import StepSettings, TrainSettings
from edgekd.wording import counted

# The sections in files of their own are imported from here as well.
__all__ = [
    "AugmentSettings",
    "BenchSettings",
    "BudgetSettings",
    "ClassWeights",
    "Data",
    "DataSettings",
    "DeviceName",
    "DistillSettings",
    "ExportSettings",
    "InputSettings",
    "LARGEST_WHOLE",
    "Measure",
    "ModelSettings",
    "NameOf",
    "OutputSettings",
    "Positive",
    "Precision",
    "PruneSettings",
    "PruneTarget",
    "QuantizeSettings",
    "Ratio",
    "RecipeSettings",
    "RecoverySettings",
    "SchemeSettings",
    "Settings",
    "Share",
    "StepSettings",
    "Task",
    "TeacherGuidedSettings",
    "TeacherSettings",
    "TermSettings",
    "Tolerance",
    "TrainSettings",
    "VariantName",
    "default_variants",
    "models_in",
]


class QuantizeSettings(RecoverySettings):
    """Symmetric int8: calibrated only (ptq), or then trained through the quantizers (qad)."""

    mode: Literal["qad", "ptq"] = Field(
        "qad", description="ptq: calibration only; qad: calibration, then training through the quantizers"
    )
    lower: ClassVar[float] = 0.01
    shorter: ClassVar[float | None] = 0.1
    fewest: ClassVar[int] = 2

    epochs: Positive = Field(
        3, description="passes over the training images, with mode: qad; default: a tenth of distill.epochs, at least 2"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="peak learning rate; default: a hundredth of distill.learning_rate"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="epochs over which the learning rate rises to its peak; a low one needs none"
    )
    precision: Literal["auto", "fp32"] = Field("auto", description="always fp32: bf16 is too coarse for int8 grids")
    compile: Literal[False] = Field(False, description="a network with quantizers is not compiled")
    calibration_images: Annotated[int, Field(ge=16)] = Field(
        512, description="number of training images, not augmented, that the scales are calibrated on"
    )
    calibration: Literal["auto", "min-max", "percentile", "entropy", "mse"] = Field(
        "auto",
        description="how the activations' ranges are chosen; auto: for each the method that changes least what is "
        "computed from it",
    )
    scales: Literal["calibrated", "observed", "learned"] = Field(
        "calibrated",
        description="the activations' scales, with mode: qad; calibrated: they stay; observed: they follow the largest "
        "values; learned: they are trained with the weights (LSQ)",
    )
    keep_float: KeepFloat = Field(
        "auto",
        description="layers and blocks that stay in float, by name (features.0) or pattern (*.fc2); auto: the fewest "
        "where int8 without training loses too much, usually none",
    )
    freeze_after: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="fraction of the epochs after which observed or learned scales are fixed"
    )
    baseline: bool = Field(True, description="with qad: also export the calibrated network, for comparison")

    @property
    def learned(self) -> bool:
        """Whether the activations' scales are trained."""
        return self.mode == "qad" and self.scales == "learned"

    @property
    def frozen_from(self) -> int:
        """The number of epochs after which the scales are fixed.

        At the latest before the last one: the exported network must have been trained with its final scales.
        """
        return 0 if self.scales == "calibrated" else min(round(self.epochs * self.freeze_after), self.epochs - 1)

    @property
    def kept_in_float(self) -> tuple[str, ...]:
        """The names and patterns that the recipe has; none with auto."""
        return () if self.keep_float == "auto" else self.keep_float


class Tolerance(Settings):
    """The largest accepted deviation of an exported graph from what it was converted from."""

    difference: Annotated[float, Field(gt=0.0)] = Field(description="largest difference, relative to the largest logit")
    agreement: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="smallest fraction of equal top-1 answers")


class ExportSettings(Settings):
    """The exported variants and their ONNX opset; unknown names are reported with their line."""

    variants: tuple[VariantName, ...] | None = Field(
        None, min_length=1, description="variants to export; default: all, the int8 ones only with a quantize section"
    )
    opset: Literal[17, 18, 19, 20, 21, 22, 23] = Field(
        17, description="ONNX opset; 17 is the newest that TensorRT 8.6 (JetPack 6.0) reads"
    )
    tolerance: dict[VariantName, Tolerance] = Field(
        {}, description="tolerances by variant that replace the variants' defaults"
    )

    @model_validator(mode="after")
    def _has_base_variants(self) -> ExportSettings:
        chosen = self.variants or ()
        for variant in _known_variants(chosen):
            for needed, why in ((variant.base, "derived from"), (variant.compared_with, "compared with")):
                if needed is not None and needed not in chosen:
                    raise ValueError(f"{needed} must be among the variants: {variant.name} is {why} it")
        return self

    def tolerance_of(self, variant: str) -> Tolerance:
        """The tolerance of a variant: the recipe's, else the variant's default."""
        default: Tolerance = plugins.load("variant", variant).tolerance
        return self.tolerance.get(variant, default)


def _known_variants(names: Iterable[str]) -> list[Any]:
    """The variants of these names. Unknown names are skipped: edgekd.recipe.mentions looks them up."""
    return [plugins.load("variant", name) for name in names if name in plugins.names("variant")]


class BenchSettings(Settings):
    """The benchmark of the exported files."""

    devices: tuple[DeviceName, ...] = Field(
        ("this-machine",), min_length=1, description="devices by name; `edgekd devices list` shows them"
    )
    batch_sizes: tuple[Positive, ...] = Field((1, 8), min_length=1, description="images in one call, each measured")
    threads: Positive | None = Field(None, description="threads per operator, at most one per usable core, the default")
    seconds: Annotated[float, Field(gt=0.0)] = Field(1.0, description="length of each timed loop, in seconds")
    warmup_seconds: Annotated[float, Field(ge=0.0)] = Field(0.2, description="length of the warm-up, in seconds")


class ReportSettings(Settings):
    """The report. A change runs no stage again."""

    images: bool = Field(
        True, description="show small versions of the test images that the model gets most confidently wrong"
    )


class RecipeSettings(Settings):
    """The whole recipe; `edgekd.recipe` reads it from YAML and reports mistakes."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="the run's folder is runs/<name>"),
    ]
    data: Data = Field(description="the images, their splits and preprocessing")
    teacher: TeacherSettings | None = Field(None, description="required, except for schemes without a teacher")
    student: ModelSettings = Field(description="the network that ships")
    distill: DistillSettings = Field(DistillSettings(), description="who teaches the student, with which losses")
    prune: PruneSettings | None = Field(None, description="default: the student is not pruned")
    quantize: QuantizeSettings | None = Field(None, description="default: no int8 graphs")
    export: ExportSettings = Field(ExportSettings(), description="the graphs in the bundle")
    bench: BenchSettings = Field(BenchSettings(), description="where and how latency is measured")
    budget: BudgetSettings | None = Field(None, description="bounds that decide the exit code; default: none")
    report: ReportSettings = Field(ReportSettings(), description="what the report shows")

    @model_validator(mode="after")
    def _inherit(self) -> RecipeSettings:
        """Fill in what the sections of further training take over from distill."""
        for name in type(self).model_fields:
            section = getattr(self, name)
            if not isinstance(section, RecoverySettings):
                continue
            # In place, because the model is frozen, and pydantic keeps the instance that it made.
            self.__dict__[name] = section.model_copy(update=section.taken_over(self.distill))
        return self

    @model_validator(mode="after")
    def _scales_move(self) -> RecipeSettings:
        found = self.quantize
        if found is not None and found.mode == "qad" and found.scales != "calibrated" and found.frozen_from == 0:
            raise ValueError(
                f"quantize: {found.scales} scales would be fixed before the first of {counted(found.epochs, 'epoch')}: "
                "raise quantize.epochs or quantize.freeze_after, or leave quantize.scales out"
            )
        return self

    @model_validator(mode="after")
    def _multilabel(self) -> RecipeSettings:
        """Fill in the losses for images of several labels, and refuse what needs one label per image."""
        if self.data.task == "single-label":
            return self
        if self.data.balance != "none":
            raise ValueError("data.balance needs one class per image: an image of several cannot be drawn by class")
        if self.teacher is not None and self.teacher.train is not None and self.teacher.train.class_weights is not None:
            raise ValueError("teacher.train.class_weights needs one class per image (data.task: single-label)")
        if self.distill.teacher_outputs.top_k is not None:
            raise ValueError("distill.teacher_outputs.top_k stores shares of one class per image: remove it")
        if "objective" not in self.distill.model_fields_set:
            objective = DEFAULT_OBJECTIVES["multilabel"]
            self.__dict__["distill"] = self.distill.model_copy(update={"objective": objective})
        return self

    @model_validator(mode="after")
    def _quantize_and_variants(self) -> RecipeSettings:
        quantized = [variant.name for variant in _known_variants(self.variants) if variant.needs_quantize]
        if self.quantize is None and quantized:
            need = "needs a quantize section, e.g. quantize: {mode: qad}"
            raise ValueError(f"export.variants: {quantized[0]} {need}")
        if self.quantize is not None and not quantized:
            first = next(name for name in default_variants(quantized=True) if name not in default_variants())
            reason = f"the quantize section makes {first} graphs"
            raise ValueError(f"{reason}: add {first} to export.variants, or remove the quantize section")
        return self

    @property
    def objectives(self) -> dict[str, tuple[TermSettings, ...]]:
        """The losses that each section trains the student with, by section; empty where it inherits them."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: section.objective or ()
            for name, section in sections.items()
            if isinstance(section, (DistillSettings, RecoverySettings))
        }

    @property
    def compiled(self) -> tuple[str, ...]:
        """The sections whose training compiles the student."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return tuple(
            name for name, each in sections.items() if isinstance(each, TeacherGuidedSettings) and each.compile
        )

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants in the bundle."""
        return self.export.variants or default_variants(quantized=self.quantize is not None)


def default_variants(*, quantized: bool = False) -> tuple[str, ...]:
    """The variants of a recipe that names none, each after the one that it is derived from.

    Args:
        quantized: whether the recipe has a quantize section.
    """
    known = [each for each in plugins.load_all("variant").values() if each.by_default]
    chosen = [each for each in known if quantized or not each.needs_quantize]
    return tuple(each.name for each in sorted(chosen, key=lambda each: each.rank))


def models_in(value: Any) -> list[ModelSettings]:
    """Every model in a value of settings, at any depth."""
    if isinstance(value, ModelSettings):
        return [value]
    if isinstance(value, BaseModel):
        return [model for name in type(value).model_fields for model in models_in(getattr(value, name))]
    if isinstance(value, (list, tuple)):
        return [model for item in value for model in models_in(item)]
    if isinstance(value, Mapping):
        return [model for item in value.values() for model in models_in(item)]
    return []
