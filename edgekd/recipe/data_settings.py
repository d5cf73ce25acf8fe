"""The data section of a recipe."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from edgekd import plugins
from edgekd.errors import EdgekdError
from edgekd.recipe.base import (
    LARGEST_WHOLE,
    Channels,
    ClassNames,
    FilePath,
    ImageSize,
    Level,
    NameOf,
    NumberOfChannels,
    Positive,
    Seed,
    Settings,
    Share,
    Task,
)
from edgekd.runtime.preprocess import (
    IMAGENET_GREY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Fit,
    Interpolation,
    Preprocessing,
    Size,
    check_normalisation,
)


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
    """The images, how they are split, and how the networks see them.

    A data source with options of its own has a subclass with them, in its file: see edgekd.data.sources.Source.
    """

    source: Annotated[str, NameOf("source")] = Field(
        description="name of a data source; `edgekd plugins source` lists them"
    )
    root: FilePath | None = Field(None, description="folder (or file) that the source reads")
    task: Task = Field(
        "single-label",
        description="single-label: every image has exactly one class; multilabel: any number of them, from a table",
    )
    class_order: Literal["name", "natural"] = Field(
        "name",
        description="order of classes that a source knows by their names only, and so of the logits: name compares "
        "them as text (1, 10, 2), natural the numbers in them as numbers (1, 2, 10)",
    )
    classes: ClassNames | None = Field(
        None,
        description="the classes in the order of the logits, which decides before class_order: a list, or a file with "
        "one per line; default: as the weights have them, where they name them; images without labels: else class 0, …",
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
    crop_pct: Annotated[float, Field(ge=0.1, le=1.0)] | None = Field(
        None,
        description="with fit: crop, the fraction of height and width that is left of an image in evaluation; "
        "default: 0.875, and 1 for images of up to 96 pixels",
    )
    channels: NumberOfChannels = Field(3, description="3: images are read in colour; 1: in greyscale")
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
    broken: Share = Field(
        0.01,
        description="largest accepted fraction of unreadable images; they are left out. One is always accepted, except "
        "with 0",
    )
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
        default = self.model_copy(update={"mean": None, "std": None}).preprocessing
        check_normalisation(self.mean or default.mean, self.std or default.std)
        if self.crop_pct is not None and self.fit != "crop":
            raise ValueError(f"fit: {self.fit} keeps all of an image: remove crop_pct, or set fit: crop")
        return self

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


def section_of(value: object) -> type[DataSettings] | None:
    """The data section with the options of the source that it names; None where there is no such source.

    Args:
        value: of the section, as it was read; it may be wrong in any way.
    """
    named = value.get("source") if isinstance(value, Mapping) else None
    with suppress(EdgekdError):  # edgekd.recipe.mentions reports it
        if isinstance(named, str):
            section: type[DataSettings] = plugins.load("source", named).settings
            return section
    return None


def sources_with(option: str) -> list[str]:
    """The names of the sources that take an option, among others of their own or of all."""
    return [name for name, source in plugins.load_all("source").items() if option in source.settings.model_fields]


def _of_its_source(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, Mapping):
        return validate(value)
    if (section := section_of(value)) is None:  # an option is not reported where its source is misspelt
        section = DataSettings
        value = {key: item for key, item in value.items() if key in section.model_fields or not sources_with(key)}
    return section.model_validate_json(json.dumps(value, default=os.fspath))


# A recipe's data section: an instance of the class that its source has.
Data = Annotated[SerializeAsAny[DataSettings], WrapValidator(_of_its_source)]
