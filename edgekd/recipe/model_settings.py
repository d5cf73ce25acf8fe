"""Networks in a recipe: their architecture, and the weights that they start from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.recipe.base import Channels, FilePath, ImageSize, Name, NameOf, Settings
from edgekd.recipe.code import reference
from edgekd.recipe.onnx_file import onnx_file
from edgekd.recipe.training_settings import TrainSettings
from edgekd.runtime.preprocess import check_normalisation


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
        "for images of up to 64 pixels, standard for trained weights that are used as they are",
    )
    activation: Literal["standard", "relu"] = Field(
        "standard",
        description="relu: a ReLU instead of every hard-swish and SiLU, which costs accuracy, and is faster in int8; "
        "standard: as the model has them",
    )
    checkpoint: FilePath | None = Field(
        None, description="weights to start from: a checkpoint folder, a .safetensors file or a PyTorch state dict"
    )
    key: Name | None = Field(
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
        settings = ("train", "checkpoint", "key", "pretrained", "arguments", "stem", "activation")
        if changed := [name for name in settings if getattr(self, name) not in (None, False, {}, "auto", "standard")]:
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
            check_normalisation(self.mean, self.std)
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
        if self.train is None and self.activation != "standard":
            raise ValueError("activation changes what trained weights compute: remove it, or train the teacher")
        return self
