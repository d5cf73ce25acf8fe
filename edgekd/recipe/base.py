"""What the sections of a recipe are made of: their base class, and types of values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from edgekd.runtime.preprocess import (
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


def not_empty(value: Any) -> Any:
    """Raises ValueError for an empty string: as a path it is the current folder to Python, as a name often none."""
    if isinstance(value, str) and not value.strip():
        current = json.dumps(".")
        raise ValueError(
            f"must not be empty: write a name or a path ({current} is the current folder), or remove the key; "
            f"found: {json.dumps(value)}"
        )
    return value


NotEmpty = BeforeValidator(not_empty)
# A validator's result is Python, not JSON: a string is not accepted for a path without strict=False.
LaxPath = Annotated[Path, Field(strict=False)]
FilePath = Annotated[
    LaxPath,
    NotEmpty,
    WithJsonSchema({"type": "string", "format": "path", "minLength": 1}),
]
Name = Annotated[str, NotEmpty, WithJsonSchema({"type": "string", "minLength": 1})]


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
    names = _lines(Path(not_empty(value))) if isinstance(value, str) else value
    right = isinstance(names, (list, tuple)) and len(names) > 1 and all(isinstance(name, str) for name in names)
    right = right and all(name.strip() for name in names)
    if not right:
        found = f"{len(names)} names" if isinstance(value, str) else json.dumps(value, default=str)
        raise ValueError(f"must be a list of two names or more, or a file with one per line; found: {found}")
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands there twice: {next(name for name in names if names.count(name) > 1)}")
    return tuple(names)


def _lines(file: Path) -> list[str]:
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a file of names, one per line")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a file of names, one per line; found: {error}") from None
    return [line.strip() for line in lines if line.strip()]


_NAMES = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2}
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
# True is 1 for a literal.
NumberOfChannels = Annotated[Literal[1, 3], BeforeValidator(lambda value: repr(value) if value is True else value)]
Level = Annotated[int, Field(ge=0, le=255)]
Precision = Literal["auto", "fp32", "bf16"]
# What an image's labels are: exactly one of the classes, or any number of them.
Task = Literal["single-label", "multilabel"]
# What models are judged by: the share of right answers, or of those as in float; the mean average precision.
Measure = Literal["accuracy", "agreement", "mAP"]


def _keep_float(value: Any) -> Any:
    """auto, or names of layers."""
    if value == "auto":
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in value):
        found = json.dumps(value, default=str)
        raise ValueError(f"must be auto or a list of layers, blocks and patterns; found: {found}")
    return tuple(value)


KeepFloat = Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_keep_float)]

# Sums and products of so many weights of a batch stay within float32.
_LIGHTEST, _HEAVIEST = 1e-9, 1e9


def _class_weights(value: Any) -> Any:
    """auto, or numbers above 0."""
    if value is None or value == "auto":
        return value
    right = isinstance(value, (list, tuple)) and all(
        type(each) in (int, float) and _LIGHTEST <= each <= _HEAVIEST for each in value
    )
    if not right or not value:
        raise ValueError(
            f"must be auto, or a list of numbers from {_LIGHTEST:g} to {_HEAVIEST:g}, one for each class; "
            f"found: {json.dumps(value)}"
        )
    return tuple(map(float, value))


ClassWeights = Annotated[Literal["auto"] | tuple[float, ...] | None, BeforeValidator(_class_weights)]
Layers = Annotated[
    tuple[Name, ...],
    # A validator's result is Python, not JSON: a list is not accepted for a tuple without this.
    Field(min_length=1, strict=False),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class Settings(BaseModel):
    """Frozen, and strict: no unknown key, no '5' for 5, no true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
