"""The recipe's settings, section by section. Light: nothing here imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from edgekd import plugins
from edgekd.recipe.code import reference
from edgekd.recipe.onnx_file import onnx_file
from edgekd.runtime.preprocess import (
    IMAGENET_GREY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Fit,
    Interpolation,
    Preprocessing,
    Size,
)


@dataclass(frozen=True)
class NameOf:
    """Marks a string as the name of something outside the recipe, which edgekd.recipe.mentions looks up."""

    kind: Literal["source", "model", "variant", "device"]


DeviceName = Annotated[str, NameOf("device")]
VariantName = Annotated[str, NameOf("variant")]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Ratio = Annotated[float, Field(gt=0.0, lt=1.0)]
_SMALLEST, _LARGEST = 8, 1024


def _size(value: Any) -> Any:
    """A height and a width; a number stands for a square."""
    sides = [value, value] if isinstance(value, int) else value
    right = isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(side) is int for side in sides)
    if not right or not all(_SMALLEST <= side <= _LARGEST for side in sides):
        allowed = f"must be a whole number from {_SMALLEST} to {_LARGEST}, or two: [height, width]"
        raise ValueError(f"{allowed}; found: {json.dumps(value, default=str)}")
    return tuple(sides)


def _class_names(value: Any) -> Any:
    """Two names or more, each once; a string names a file with one per line."""
    names = _lines(Path(value)) if isinstance(value, str) else value
    right = isinstance(names, (list, tuple)) and len(names) > 1 and all(isinstance(name, str) for name in names)
    if not right:
        found = f"{len(names)} names" if isinstance(value, str) else json.dumps(value, default=str)
        raise ValueError(f"must be a list of two names or more, or a file with one per line; found: {found}")
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands there twice: {next(name for name in names if names.count(name) > 1)}")
    return tuple(names)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a file of names, one per line; found: {error}") from None
    return [line.strip() for line in lines if line.strip()]


_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 2}
ClassNames = Annotated[
    tuple[str, ...],
    Field(strict=False),
    BeforeValidator(_class_names),
    WithJsonSchema({"anyOf": [{"type": "string"}, _NAMES]}),
]
_SIDE = {"type": "integer", "minimum": _SMALLEST, "maximum": _LARGEST}
_SIDES = {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}
ImageSize = Annotated[Size, Field(strict=False), BeforeValidator(_size), WithJsonSchema({"anyOf": [_SIDE, _SIDES]})]
# A validator's result is Python, not JSON: a list is not accepted for a tuple without strict=False.
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3, strict=False)]
# Images of up to this many pixels in height and width are not cropped, neither by default nor in training.
LARGEST_WHOLE = 96
Level = Annotated[int, Field(ge=0, le=255)]
Precision = Literal["auto", "fp32", "bf16"]
# What an image's labels are: exactly one of the classes, or any number of them.
Task = Literal["single-label", "multilabel"]
# What models are judged by: the share of right answers, or of those as in float; the mean average precision.
Measure = Literal["accuracy", "agreement", "mAP"]
# A validator's result is Python, not JSON: a list is not accepted for a tuple in strict mode.
Weights = Annotated[tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...], Field(strict=False)]
ClassWeights = Literal["auto"] | Weights | None
Layers = Annotated[
    tuple[str, ...],
    # A validator's result is Python, not JSON: a list is not accepted for a tuple without this.
    Field(min_length=1, strict=False),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class Settings(BaseModel):
    """Frozen, and strict: no unknown key, no '5' for 5, no true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AugmentSettings(Settings):
    """Augmentation of training images. Parameters are drawn per sample, pixels are computed per batch."""

    crop: Literal["auto", "pad", "resized", "none"] = Field(
        "auto",
        description="pad: random shift within a padded border; resized: random resized crop; none: centre crop; "
        "auto: pad for images of up to 96 pixels, else resized",
    )
    padding: Annotated[int, Field(ge=0)] | None = Field(
        None, description="width of the border for crop: pad, in pixels; default: image_size / 8"
    )
    scale: tuple[float, float] = Field(
        (0.35, 1.0), description="smallest and largest fraction of the image's area for crop: resized"
    )
    flip: bool | None = Field(
        None, description="mirror half of the images left to right; default: what the data source declares"
    )

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentSettings:
        low, high = self.scale
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"scale {list(self.scale)} is not a range: 0 < smallest ≤ largest ≤ 1")
        return self


class DataSettings(Settings):
    """The images, how they are split, and how the networks see them."""

    # What decides, besides root, which images and labels a source gives; each source names those that it uses.
    source_options: ClassVar[tuple[str, ...]] = (
        "image_column",
        "label_column",
        "split_column",
        "delimiter",
        "outside_root",
        "class_order",
        "classes",
        "task",
        "label_separator",
    )

    source: Annotated[str, NameOf("source")] = Field(
        description="name of a data source; `edgekd plugins source` lists them"
    )
    root: Path | None = Field(None, description="folder (or file) that the source reads")
    task: Task = Field(
        "single-label",
        description="single-label: every image has exactly one class; multilabel: any number of them, for csv-file and "
        "parquet",
    )
    image_column: str | None = Field(
        None, description="the column of the images, for a source of tables; default: one with a usual name"
    )
    label_column: str | None = Field(
        None, description="the column of the labels, for a source of tables; default: one with a usual name"
    )
    split_column: str | None = Field(
        None,
        description="the column of the splits, for csv-file: train, validation, test; default: split, if there is one",
    )
    delimiter: Literal[",", ";", "tab"] | None = Field(
        None, description="between the values of csv-file; default: the one of comma, semicolon and tab in its header"
    )
    label_separator: str = Field(
        "|", min_length=1, description="between the classes in one value of csv-file, with task: multilabel"
    )
    outside_root: bool = Field(
        False, description="accept files outside of the folder of a csv-file, by absolute paths or paths with .."
    )
    class_order: Literal["name", "natural"] = Field(
        "name",
        description="order of classes that a source knows by their names only, and so of the logits: name compares "
        "them as text (1, 10, 2), natural the numbers in them as numbers (1, 2, 10)",
    )
    classes: ClassNames | None = Field(
        None,
        description="for images without labels, the names of the student's classes in the order of its logits: a list, "
        "or a file with one per line; default: those that its weights come with, else class 0, class 1, …",
    )
    download: bool = Field(False, description="let torchvision download the data set into root")
    image_size: ImageSize = Field(
        (224, 224),
        description="size of the images that the student takes, in pixels: a square's side, or [height, width]; "
        "default: that of the student's weights, else 224",
    )
    fit: Fit = Field(
        "crop",
        description="how an image of another ratio of height to width gets that of image_size; crop: its centre; pad: "
        "all of it, with the background around; squash: all of it, distorted",
    )
    crop_pct: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="with fit: crop, the fraction of height and width that is left of an image in evaluation; "
        "default: 0.875, and 1 for images of up to 96 pixels",
    )
    channels: Literal[1, 3] = Field(3, description="3: images are read in colour; 1: in greyscale")
    interpolation: Interpolation = Field(
        "bilinear", description="how images are scaled; default: as for the student's weights, else bilinear"
    )
    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.1, description="fraction of the training images used for validation where the source has no validation split"
    )
    test: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.2, description="fraction of the images used for testing where the source has no test split"
    )
    limit: Positive | None = Field(
        None, description="use only this many training images, with the classes in proportion; default: all"
    )
    balance: Literal["none", "sqrt", "full"] = Field(
        "none",
        description="training images drawn by class, with replacement: the probability of a class of n images is "
        "proportional to n (none), to the root of n (sqrt), or the same for every class (full)",
    )
    leaks: Literal["drop", "refuse", "report"] = Field(
        "drop",
        description="what to do with images that occur in two splits: drop them from the split that trains, refuse "
        "the data set, or only report them",
    )
    broken: Share = Field(0.01, description="largest accepted fraction of unreadable images; they are left out")
    storage: Literal["auto", "cached", "streamed"] = Field(
        "auto",
        description="cached: decoded pixels on the disk; streamed: files are decoded in every epoch; auto: cached "
        "below 4 GiB and a third of the free disk space",
    )
    mean: Channels | None = Field(
        None,
        description="mean of each channel, of values in [0, 1]; default: as for the student's weights, else ImageNet's",
    )
    std: Channels | None = Field(None, description="standard deviation of each channel; default: as for mean")
    depth: Literal["auto", 10, 12, 14, 16] = Field(
        "auto",
        description="bits that are used in greyscale images of more than 8 bits; auto: from the largest value in the "
        "training images, also for float values",
    )
    background: tuple[Level, Level, Level] = Field(
        (255, 255, 255),
        description="colour behind transparent pixels, and around images with fit: pad: red, green, blue, 0 to 255",
    )
    seed: Seed = Field(0, description="seed of the splits and of limit")
    augment: AugmentSettings = Field(AugmentSettings(), description="how training images are varied")

    @model_validator(mode="after")
    def _channels_fit(self) -> DataSettings:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values, and channels is {self.channels}: give one for each")
        if self.std is not None and min(self.std) <= 0.0:
            raise ValueError("std must be above 0")
        if self.crop_pct is not None and self.fit != "crop":
            raise ValueError(f"fit: {self.fit} keeps all of an image: remove crop_pct, or set fit: crop")
        return self

    @property
    def set_options(self) -> dict[str, Any]:
        """The source's options that differ from their defaults, by name."""
        fields = type(self).model_fields
        return {key: value for key in self.source_options if (value := getattr(self, key)) != fields[key].default}

    @property
    def preprocessing(self) -> Preprocessing:
        """With `depth: auto`, `white` is only a default: see edgekd.data.prepare."""
        mean, std = IMAGENET_GREY if self.channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
        return Preprocessing(
            self.image_size,
            self._resize,
            self.mean or mean,
            self.std or std,
            self.interpolation,
            background=self.background,
            white=Preprocessing.white if self.depth == "auto" else 2.0**self.depth - 1.0,
            fit=self.fit,
        )

    @property
    def _resize(self) -> Size:
        """Before the crop, which is an eighth of height and width for larger images, as is usual at 224."""
        height, width = self.image_size
        if self.fit != "crop" or (self.crop_pct is None and max(height, width) <= LARGEST_WHOLE):
            return self.image_size
        kept = self.crop_pct or 0.875
        return math.floor(height / kept + 1e-6), math.floor(width / kept + 1e-6)


class StepSettings(Settings):
    """Optimisation settings of any training. The schedule is a cosine after a linear warm-up, counted in steps."""

    epochs: Positive = Field(30, description="passes over the training images")
    batch_size: Positive | None = Field(
        None, description="images in a step; default: 128, of fewer than 1,024 training images an eighth"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd: with momentum; adamw: needs a lower learning rate"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(0.1, description="peak learning rate, after the warm-up")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.9, description="momentum of sgd (Nesterov); adamw ignores it"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        5e-4, description="weight decay; biases and normalisation layers are excluded"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="epochs over which the learning rate rises to its peak"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        5.0, description="largest norm of the gradient, larger ones are scaled down to it; null: no clipping"
    )
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="decay of an exponential moving average of the weights; default: no averaging"
    )
    precision: Precision = Field(
        "auto", description="auto: chosen by timing a few steps, in very short trainings by rule"
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="auto: chosen by timing a few steps, in very short trainings channels_last"
    )
    threads: Positive | None = Field(
        None, description="CPU threads; default: chosen by timing a few steps, at most one per usable core"
    )
    compile: bool = Field(
        False, description="run the student and a live teacher through torch.compile; pays off in long trainings"
    )
    seed: Seed = Field(0, description="seed of the initial weights, the order of the images and their augmentation")


class TrainSettings(StepSettings):
    """Training on labels."""

    label_smoothing: Share = Field(0.0, description="label smoothing of the cross-entropy")
    class_weights: ClassWeights = Field(
        None,
        description="weights of the classes in the cross-entropy: a list in the order of the classes; auto: n / "
        "(K n_c) for n_c of n training images and K classes; default: all equal",
    )


class ModelSettings(Settings):
    """A network: its architecture and the weights that it starts from."""

    may_be_onnx: ClassVar[bool] = False

    model: Annotated[str, NameOf("model")] = Field(
        description="source/name, e.g. torchvision/mobilenet_v3_small or timm/resnet50; or a function of your own: "
        "nets.py:build; for a teacher also an ONNX file"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments for the function that builds the model"
    )
    stem: Literal["auto", "small", "standard"] = Field(
        "auto",
        description="small: the first convolution has stride 1 and the max-pooling behind it is removed; auto: small "
        "for images of up to 64 pixels",
    )
    checkpoint: Path | None = Field(
        None, description="weights to start from: a checkpoint folder, a .safetensors file or a PyTorch state dict"
    )
    key: str | None = Field(
        None,
        description="which weights of the checkpoint's file, where it holds several: the key of a state dict, or a "
        "prefix of names; default: those that fit, averaged ones (EMA) before others",
    )
    pretrained: bool = Field(False, description="start from the weights that the source publishes (downloads them)")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.checkpoint is not None and self.pretrained:
            raise ValueError("checkpoint and pretrained exclude each other: remove one")
        if self.key is not None and (self.checkpoint is None or self.checkpoint.is_dir()):
            raise ValueError("key chooses weights of a checkpoint's file: set checkpoint to one, or remove key")
        if self.pretrained and reference(self.model) is not None:
            raise ValueError("a network of your own has no published weights: set checkpoint, or train it")
        if self.stem == "small" and reference(self.model) is not None:
            raise ValueError("stem does not apply to a network of your own: its function builds the stem; remove stem")
        if onnx_file(self.model) is not None:
            self._check_onnx()
        return self

    def _check_onnx(self) -> None:
        if not self.may_be_onnx:
            raise ValueError("an ONNX file cannot be trained: only a teacher's model can be one")
        settings = ("train", "checkpoint", "key", "pretrained", "arguments", "stem")
        if changed := [name for name in settings if getattr(self, name) not in (None, False, {}, "auto")]:
            raise ValueError(f"an ONNX file is used as it is: remove {', '.join(changed)}")


class InputSettings(Settings):
    """The input that a teacher's weights were trained with; images that are prepared for the student are converted."""

    image_size: ImageSize | None = Field(
        None, description="in pixels: a square's side, or [height, width]; default: what its weights come with"
    )
    mean: Channels | None = Field(
        None, description="mean of each channel, one for greyscale; default: what its weights come with, else data.mean"
    )
    std: Channels | None = Field(None, description="standard deviation of each channel")

    @model_validator(mode="after")
    def _channels_fit(self) -> InputSettings:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: set both or neither")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or len(self.mean) == 2:
                raise ValueError("mean and std need three values each, or one for greyscale")
            if min(self.std) <= 0.0:
                raise ValueError("std must be above 0")
        return self


class TeacherSettings(ModelSettings):
    """The teacher: a checkpoint or published weights used as they are, or a network that is trained first.

    An ONNX file can be a teacher too, for losses on logits.
    """

    may_be_onnx: ClassVar[bool] = True

    input: InputSettings | None = Field(
        None, description="what its weights were trained with, where that differs from the data section"
    )

    train: TrainSettings | None = Field(
        None, description="train the teacher first; default: the checkpoint or the published weights are used as is"
    )

    @model_validator(mode="after")
    def _trained_somewhere(self) -> TeacherSettings:
        if onnx_file(self.model) is not None:
            return self
        if self.train is None and self.checkpoint is None and not self.pretrained:
            raise ValueError("a teacher must be trained: set checkpoint, pretrained: true, or train")
        return self


class _WithParameters(BaseModel):
    """Keys beyond its own fields are parameters of the plugin that it names, and are checked by that plugin."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TermSettings(_WithParameters):
    """One term of the objective, with the method's own parameters as further keys."""

    method: str = Field(description="name of a distillation method; `edgekd plugins method` lists them")
    weight: Annotated[float, Field(gt=0.0)] = Field(1.0, description="factor of this term in the sum")
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


class PruneTarget(Settings):
    """The fraction of the network to keep; set exactly one of the two."""

    macs: Ratio | None = Field(None, description="fraction of the multiply-accumulates per image to keep")
    parameters: Ratio | None = Field(None, description="fraction of the parameters to keep")

    @model_validator(mode="after")
    def _one_target(self) -> PruneTarget:
        if (self.macs is None) == (self.parameters is None):
            raise ValueError("a target is either macs or parameters: set exactly one of them")
        return self

    @property
    def measure(self) -> Literal["macs", "parameters"]:
        return "macs" if self.macs is not None else "parameters"

    @property
    def share(self) -> float:
        kept = self.macs if self.macs is not None else self.parameters
        assert kept is not None
        return kept


class RecoverySettings(TeacherGuidedSettings):
    """Further training of a trained network, pruned or quantized: fewer epochs and a lower learning rate.

    What a recipe does not set of `batch_size`, `optimizer` and `threads` is as in its distill section, and the learning
    rate is a fraction of that one's.
    """

    lower: ClassVar[float] = 0.2

    epochs: Positive = Field(10, description="passes over the training images")
    batch_size: Positive | None = Field(None, description="images in a step; default: distill.batch_size")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="default: distill.optimizer")
    threads: Positive | None = Field(None, description="default: distill.threads")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        0.02, description="peak learning rate; default: a fifth of distill.learning_rate"
    )
    objective: tuple[TermSettings, ...] | None = Field(
        None, min_length=1, description="the losses to train with; default: the losses on logits in distill.objective"
    )


class PruneSettings(RecoverySettings):
    """Structured pruning to a target, then recovery by distillation."""

    target: PruneTarget = Field(PruneTarget(macs=0.5), description="how much of the network is kept")
    device: DeviceName = Field(
        "this-machine", description="device whose channel_multiple the layers' widths are rounded to"
    )
    multiple: Positive | None = Field(None, description="round the widths to multiples of this number instead")


class QuantizeSettings(RecoverySettings):
    """Symmetric int8: calibrated only (ptq), or then trained through the quantizers (qad)."""

    mode: Literal["qad", "ptq"] = Field(
        "qad", description="ptq: calibration only; qad: calibration, then training through the quantizers"
    )
    lower: ClassVar[float] = 0.1

    epochs: Positive = Field(6, description="passes over the training images, with mode: qad")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        0.01, description="peak learning rate; default: a tenth of distill.learning_rate"
    )
    precision: Literal["auto", "fp32"] = Field("auto", description="always fp32: bf16 is too coarse for int8 grids")
    compile: Literal[False] = Field(False, description="a network with quantizers is not compiled")
    calibration_images: Annotated[int, Field(ge=16)] = Field(
        512, description="number of training images, not augmented, that the scales are calibrated on"
    )
    freeze_after: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="fraction of the epochs after which the activations' scales are fixed"
    )
    baseline: bool = Field(True, description="with qad: also export the calibrated network, for comparison")


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
    data: DataSettings = Field(description="the images, their splits and preprocessing")
    teacher: TeacherSettings | None = Field(None, description="required, except for schemes without a teacher")
    student: ModelSettings = Field(description="the network that ships")
    distill: DistillSettings = Field(DistillSettings(), description="who teaches the student, with which losses")
    prune: PruneSettings | None = Field(None, description="default: the student is not pruned")
    quantize: QuantizeSettings | None = Field(None, description="default: no int8 graphs")
    export: ExportSettings = Field(ExportSettings(), description="the graphs in the bundle")
    bench: BenchSettings = Field(BenchSettings(), description="where and how latency is measured")
    report: ReportSettings = Field(ReportSettings(), description="what the report shows")

    @model_validator(mode="after")
    def _inherit(self) -> RecipeSettings:
        """Fill in what the sections of further training take over from distill."""
        for name in type(self).model_fields:
            section = getattr(self, name)
            if not isinstance(section, RecoverySettings):
                continue
            taken: dict[str, Any] = {key: getattr(self.distill, key) for key in ("batch_size", "optimizer", "threads")}
            # Rounded: a fifth of 0.1 is to be 0.02.
            taken["learning_rate"] = round(section.lower * self.distill.learning_rate, 12)
            unset = {key: value for key, value in taken.items() if key not in section.model_fields_set}
            # In place, because the model is frozen, and pydantic keeps the instance that it made.
            self.__dict__[name] = section.model_copy(update=unset)
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
            need = "needs a quantize section, e.g. quantize: {mode: qad, epochs: 6}"
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
