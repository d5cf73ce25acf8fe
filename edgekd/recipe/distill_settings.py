"""The recipe's distill section, and what all trainings with a teacher share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgekd.recipe.base import (
    Layers,
    Positive,
    Precision,
    Settings,
    Task,
)
from edgekd.recipe.training_settings import StepSettings, TrainSettings


class _WithParameters(BaseModel):
    """Keys beyond its own fields are parameters of the plugin that it names, and are checked by that plugin."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TermSettings(_WithParameters):
    """One term of the objective, with the method's own parameters as further keys."""

    method: str = Field(description="name of a distillation method; `edgekd plugins method` lists them")
    weight: Annotated[float, Field(gt=0.0, le=1e9)] = Field(1.0, description="factor of this term in the sum")
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="epochs over which the weight rises from zero to its value"
    )
    student_layers: Layers | None = Field(
        None, description="for a loss on features: the student's layers, one module path or a list"
    )
    teacher_layers: Layers | None = Field(
        None, description="the teacher's layers, paired with student_layers; set both or neither"
    )


class SchemeSettings(_WithParameters):
    """A distillation scheme: who teaches whom, and on what images; its own parameters are further keys."""

    name: str = Field(description="name of a distillation scheme; `edgekd plugins scheme` lists them")


def _on_or_off(value: Any) -> Any:
    """YAML 1.1 reads on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class OutputSettings(Settings):
    """Whether the teacher's logits are computed once, for a number of views per image, and read in later epochs."""

    store: Annotated[Literal["off", "on", "auto"], BeforeValidator(_on_or_off)] = Field(
        "off", description="whether the teacher's logits are stored; auto: chosen by timing a few batches"
    )
    views: Positive = Field(
        8, description="number of augmented views per image; the epochs take them in turn, and each has its own seed"
    )
    top_k: Positive | None = Field(
        None, description="store only this many of the largest outputs, as log-probabilities; default: all logits"
    )


def _shorthand(key: str) -> BeforeValidator:
    """`section: value` for `section: {key: value}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, (str, bool)) else value)


Outputs = Annotated[OutputSettings, _shorthand("store")]
Scheme = Annotated[SchemeSettings, _shorthand("name")]


class TeacherGuidedSettings(StepSettings):
    """Training with a teacher."""

    teacher_precision: Precision = Field(
        "auto",
        description="precision of the teacher's forward pass; auto: bf16 where it is faster and its answers agree "
        "with fp32",
    )


# What a recipe's student minimises if the recipe does not set it.
DEFAULT_OBJECTIVES: Mapping[Task, tuple[TermSettings, ...]] = {
    "single-label": (TermSettings(method="kd", weight=0.9), TermSettings(method="cross_entropy", weight=0.1)),
    "multilabel": (
        TermSettings(method="binary_kd", weight=0.9),
        TermSettings(method="binary_cross_entropy", weight=0.1),
    ),
}


class DistillSettings(TeacherGuidedSettings):
    """Distillation: the scheme, the objective and the training."""

    scheme: Scheme = Field(
        SchemeSettings(name="offline"), description="name of a scheme, or a mapping with its name and its parameters"
    )
    objective: tuple[TermSettings, ...] = Field(
        DEFAULT_OBJECTIVES["single-label"],
        min_length=1,
        description="the weighted sum of losses that the student minimises; default for task: multilabel: binary_kd "
        "and binary_cross_entropy, with the same weights",
    )
    teacher_outputs: Outputs = Field(
        OutputSettings(), description="off, on or auto, or a mapping with store, views and top_k"
    )
    baseline: bool = Field(
        True, description="also train the student on labels only, with the same settings, for comparison"
    )

    @property
    def training(self) -> TrainSettings:
        """The same training on labels only."""
        return TrainSettings(**self.model_dump(include=set(StepSettings.model_fields)))


class RecoverySettings(TeacherGuidedSettings):
    """Further training of a trained network, pruned or quantized: fewer epochs and a lower learning rate.

    What a recipe does not set of `batch_size`, `optimizer` and `threads` is as in its distill section, and the learning
    rate is a fraction of that one's; so are the epochs where `shorter` is set.
    """

    lower: ClassVar[float] = 0.2
    # The fraction of distill's epochs, and the fewest.
    shorter: ClassVar[float | None] = None
    fewest: ClassVar[int] = 1

    epochs: Positive = Field(10, description="passes over the training images")
    batch_size: Positive | None = Field(None, description="images in a step; default: distill.batch_size")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="default: distill.optimizer")
    threads: Positive | None = Field(None, description="default: distill.threads")
    learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="peak learning rate; default: a fifth of distill.learning_rate"
    )
    objective: tuple[TermSettings, ...] | None = Field(
        None, min_length=1, description="the losses to train with; default: the losses on logits in distill.objective"
    )

    def taken_over(self, distill: DistillSettings) -> dict[str, Any]:
        """The values of what this section does not set, as they follow from the distill section."""
        taken: dict[str, Any] = {key: getattr(distill, key) for key in ("batch_size", "optimizer", "threads")}
        if distill.learning_rate is not None:
            # Rounded: a fifth of 0.1 is to be 0.02.
            taken["learning_rate"] = round(self.lower * distill.learning_rate, 12)
        taken["epochs"] = self.derived_epochs(distill)
        return {key: value for key, value in taken.items() if key not in self.model_fields_set}

    def derived_epochs(self, distill: DistillSettings) -> int:
        """The epochs of a section that does not set them."""
        return self.epochs if self.shorter is None else max(self.fewest, round(self.shorter * distill.epochs))
