"""What a recipe can say, section by section. Light: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgekd import plugins
from edgekd.recipe.code import reference
from edgekd.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Kept = Annotated[float, Field(gt=0.0, lt=1.0)]
Channels = tuple[float, float, float]
Precision = Literal["auto", "fp32", "bf16"]
Layers = Annotated[
    tuple[str, ...],
    # What a validator hands on is no JSON any more, where a list is a tuple.
    Field(min_length=1, strict=False),
    BeforeValidator(lambda said: (said,) if isinstance(said, str) else said),
]


class Settings(BaseModel):
    """Frozen, and strict: no unknown key, no '5' for 5, no true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AugmentSettings(Settings):
    """How training images are varied. Drawn for each sample, computed on whole batches."""

    crop: Literal["auto", "pad", "resized", "none"] = Field(
        "auto", description="pad: shift within a border; resized: random area; auto: pad up to 96 pixels"
    )
    padding: Annotated[int, Field(ge=0)] | None = Field(None, description="pixels; default image_size / 8")
    scale: tuple[float, float] = Field((0.35, 1.0), description="share of the area that a resized crop keeps")
    flip: bool | None = Field(None, description="mirror left and right; default: as the data source says")


class DataSettings(Settings):
    source: str = Field(description="a data source by name: `edgekd plugins source`")
    root: Path | None = Field(None, description="where the images lie")
    download: bool = Field(False, description="let torchvision fetch the data set into root")
    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(0.1, description="share of the training images")
    test: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(0.2, description="share, where the source has no test split")
    limit: Positive | None = Field(None, description="keep this many training images, classes in proportion")
    leaks: Literal["drop", "refuse", "report"] = Field("drop", description="images that stand in two splits")
    broken: Share = Field(0.01, description="share of unreadable images that is put up with")
    storage: Literal["auto", "cached", "streamed"] = "auto"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    seed: Seed = 0
    augment: AugmentSettings = AugmentSettings()

    @property
    def preprocessing(self) -> Preprocessing:
        """Small images are taken whole; larger ones lose an eighth at the border, as is usual at 224."""
        resize = self.image_size if self.image_size <= 96 else round(self.image_size * 8 / 7)
        return Preprocessing(self.image_size, resize, self.mean, self.std)


class StepSettings(Settings):
    """How any training steps. The schedule is a cosine after a linear warm-up; it is counted in steps."""

    epochs: Positive = 30
    batch_size: Positive = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 5e-4
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 1.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 5.0
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(None, description="decay of the averaged weights")
    precision: Precision = Field("auto", description="auto: the faster one, timed where the training is long")
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field("auto", description="the same")
    threads: Positive | None = Field(None, description="of the CPU; default: timed where it is long, else all")
    compile: bool = Field(False, description="student and live teacher through torch.compile: for long trainings")
    seed: Seed = 0


class TrainSettings(StepSettings):
    """A training from labels."""

    label_smoothing: Share = 0.0


class ModelSettings(Settings):
    model: str = Field(
        description="source/name, e.g. torchvision/mobilenet_v3_small, timm/resnet50; or your own: nets.py:build"
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="passed to the model's builder")
    stem: Literal["auto", "small", "standard"] = Field("auto", description="small: first convolution keeps the size")
    checkpoint: Path | None = Field(None, description="a checkpoint folder, .safetensors or a state dict")
    pretrained: bool = Field(False, description="begin with the source's published weights (downloads them)")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.checkpoint is not None and self.pretrained:
            raise ValueError("checkpoint and pretrained exclude each other: keep one")
        if self.pretrained and reference(self.model) is not None:
            raise ValueError("a network of your own has no published weights: give a checkpoint, or train it")
        if self.stem == "small" and reference(self.model) is not None:
            raise ValueError("a network of your own has the stem that its function builds: leave stem out")
        return self


class TeacherSettings(ModelSettings):
    train: TrainSettings | None = Field(None, description="train it first; without it the checkpoint is taken as it is")

    @model_validator(mode="after")
    def _some_knowledge(self) -> TeacherSettings:
        if self.train is None and self.checkpoint is None and not self.pretrained:
            raise ValueError("a teacher needs checkpoint, pretrained: true, or train: an untrained one teaches nothing")
        return self


class _Open(BaseModel):
    """What it says beyond its own fields is checked where the plugin that it names is known."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TermSettings(_Open):
    """One term of the objective; the method's own parameters stand beside these."""

    method: str
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(0.0, description="over which the weight grows from nothing")
    student_layers: Layers | None = Field(None, description="module paths, one or a list, for a loss on features")
    teacher_layers: Layers | None = Field(None, description="the same of the teacher; both or neither")


class SchemeSettings(_Open):
    """Who teaches whom, and on what; the scheme's own parameters stand beside its name."""

    name: str


def _switch(said: Any) -> Any:
    """YAML 1.1 reads on and off as true and false."""
    return {True: "on", False: "off"}[said] if isinstance(said, bool) else said


class OutputSettings(Settings):
    """Whether the teacher's logits are computed once, for a number of views of each image, and read from then on."""

    store: Annotated[Literal["off", "on", "auto"], BeforeValidator(_switch)] = Field(
        "off", description="auto: as a few timed batches say"
    )
    views: Positive = Field(8, description="of each image, shown in turn over the epochs; each keeps its seed")
    top_k: Positive | None = Field(None, description="keep only the largest, as log-probabilities; default: all")


def _short(key: str) -> BeforeValidator:
    """`section: value` for `section: {key: value}`."""
    return BeforeValidator(lambda said: {key: said} if isinstance(said, (str, bool)) else said)


Outputs = Annotated[OutputSettings, _short("store")]
Scheme = Annotated[SchemeSettings, _short("name")]


class TeacherGuidedSettings(StepSettings):
    """A training beside a teacher."""

    teacher_precision: Precision = Field("auto", description="auto: bf16 where it is faster and says the same")


class DistillSettings(TeacherGuidedSettings):
    scheme: Scheme = Field(SchemeSettings(name="offline"), description="a name, or a name with parameters")
    objective: tuple[TermSettings, ...] = Field(
        (TermSettings(method="kd", weight=0.9), TermSettings(method="cross_entropy", weight=0.1)), min_length=1
    )
    teacher_outputs: Outputs = Field(OutputSettings(), description="off, on, auto, or these with parameters")
    baseline: bool = Field(True, description="also train the student from labels alone, same steps, to compare")

    @property
    def training(self) -> TrainSettings:
        """The same steps from labels alone."""
        return TrainSettings(**self.model_dump(include=set(StepSettings.model_fields)))


class PruneTarget(Settings):
    """What is kept of the network, as a share; exactly one of the two."""

    macs: Kept | None = Field(None, description="of the multiply-accumulates for one image")
    parameters: Kept | None = Field(None, description="of the weights")

    @model_validator(mode="after")
    def _one_target(self) -> PruneTarget:
        if (self.macs is None) == (self.parameters is None):
            raise ValueError("a target is either macs or parameters: name one of them")
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
    """A training that goes on from a network that can do its task already: shorter, and in smaller steps."""

    epochs: Positive = 10
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.02
    objective: tuple[TermSettings, ...] | None = Field(
        None, min_length=1, description="what it learns from the teacher; default: distill.objective's losses on logits"
    )


class PruneSettings(RecoverySettings):
    """Structured pruning to a target, then recovery by distillation."""

    target: PruneTarget = PruneTarget(macs=0.5)
    device: str = Field("this-machine", description="whose channel multiple the widths are rounded to")
    multiple: Positive | None = Field(None, description="round widths to this instead")


class QuantizeSettings(RecoverySettings):
    """Symmetric int8: calibrated only (ptq), or then trained through the quantizers (qad)."""

    mode: Literal["qad", "ptq"] = "qad"
    epochs: Positive = 6
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.01
    precision: Literal["auto", "fp32"] = Field("auto", description="int8 grids are finer than bf16: always fp32")
    compile: Literal[False] = Field(False, description="quantizers move while they are trained: never compiled")
    calibration_images: Annotated[int, Field(ge=16)] = Field(512, description="of the training split, not augmented")
    freeze_after: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.5, description="share of epochs that scales move")
    baseline: bool = Field(True, description="with qad: also export the calibrated network, to compare")


class Tolerance(Settings):
    """How far an exported graph may be from the network: differences relative to the largest logit."""

    difference: Annotated[float, Field(gt=0.0)]
    agreement: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="share of equal top-1 answers")


class ExportSettings(Settings):
    """Names of variants are checked with the recipe's other names; see edgekd.recipe.load."""

    variants: tuple[str, ...] | None = Field(
        None, min_length=1, description="default: all, those that are quantized only with quantize"
    )
    opset: Literal[17, 18, 19, 20, 21, 22, 23] = Field(
        17, description="the newest that TensorRT 8.6 reads, on JetPack 6.0"
    )
    tolerance: dict[str, Tolerance] = Field({}, description="by variant, where it is to differ from the defaults")

    @model_validator(mode="after")
    def _sources(self) -> ExportSettings:
        chosen = self.variants or ()
        for variant in _known_variants(chosen):
            for needed, why in ((variant.base, "derived from"), (variant.compared_with, "compared with")):
                if needed is not None and needed not in chosen:
                    raise ValueError(f"{needed} must be among the variants: {variant.name} is {why} it")
        return self

    def tolerance_of(self, variant: str) -> Tolerance:
        """How far a graph of this variant may be from what it was made from."""
        default: Tolerance = plugins.load("variant", variant).tolerance
        return self.tolerance.get(variant, default)


def _known_variants(names: Iterable[str]) -> list[Any]:
    """The variants of these names; wrong names are left out: whoever reads the recipe reports them with their line."""
    return [plugins.load("variant", name) for name in names if name in plugins.names("variant")]


class BenchSettings(Settings):
    devices: tuple[str, ...] = Field(("this-machine",), min_length=1)
    batch_sizes: tuple[Positive, ...] = Field((1, 8), min_length=1)
    threads: Positive | None = Field(None, description="default: one a usable core")
    seconds: Annotated[float, Field(gt=0.0)] = 1.0
    warmup_seconds: Annotated[float, Field(ge=0.0)] = 0.2


class RecipeSettings(Settings):
    """The whole recipe; `edgekd.recipe` reads it from YAML and reports mistakes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataSettings
    teacher: TeacherSettings | None = Field(None, description="left out: only for schemes that do without")
    student: ModelSettings
    distill: DistillSettings = DistillSettings()
    prune: PruneSettings | None = Field(None, description="left out: the student keeps its widths")
    quantize: QuantizeSettings | None = Field(None, description="left out: no int8 graphs")
    export: ExportSettings = ExportSettings()
    bench: BenchSettings = BenchSettings()

    @model_validator(mode="after")
    def _quantize_and_variants(self) -> RecipeSettings:
        quantized = [variant.name for variant in _known_variants(self.variants) if variant.needs_quantize]
        if self.quantize is None and quantized:
            need = "needs a quantize section, e.g. quantize: {mode: qad, epochs: 6}"
            raise ValueError(f"export.variants: {quantized[0]} {need}")
        if self.quantize is not None and not quantized:
            first = next(name for name in default_variants(quantized=True) if name not in default_variants())
            made = f"quantize makes {first} graphs"
            raise ValueError(f"{made}: add {first} to export.variants, or leave quantize out")
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """What ends up in the bundle."""
        return self.export.variants or default_variants(quantized=self.quantize is not None)


def default_variants(*, quantized: bool = False) -> tuple[str, ...]:
    """What a recipe that names no variants gets, each behind the one that it is derived from.

    Args:
        quantized: whether the recipe has a quantize section.
    """
    known = [each for each in plugins.load_all("variant").values() if each.by_default]
    chosen = [each for each in known if quantized or not each.needs_quantize]
    return tuple(each.name for each in sorted(chosen, key=lambda each: each.rank))


def models_in(value: Any) -> list[ModelSettings]:
    """Every model that settings name, however deep."""
    if isinstance(value, ModelSettings):
        return [value]
    if isinstance(value, BaseModel):
        return [model for name in type(value).model_fields for model in models_in(getattr(value, name))]
    if isinstance(value, (list, tuple)):
        return [model for item in value for model in models_in(item)]
    if isinstance(value, Mapping):
        return [model for item in value.values() for model in models_in(item)]
    return []
