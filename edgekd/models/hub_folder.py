"""Folders as timm and Hugging Face write them: config.json and the weights beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgekd import safe_json
from edgekd.errors import ModelError, summary
from edgekd.models.trained_input import TrainedInput
from edgekd.recipe.explain import explain
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.preprocess import Fit, Interpolation, Size

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")
_INTERPOLATIONS: Mapping[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}
# timm trains with a random one and evaluates with bilinear; 2 and 3 are Pillow's numbers.
_RESAMPLING: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
_FITS: Mapping[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}
_USUAL_FACTOR = 1 / 255


@dataclass(frozen=True)
class HubFolder:
    """A folder's network.

    Attributes:
        weights: the file.
        config: the file that describes it.
        architecture: timm's name of the network; None in a folder of another library.
        arguments: for timm's builder.
        classes: in the order of the logits; None where they are not named.
        input: what the weights were trained with.
    """

    weights: Path
    config: Path
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    input: TrainedInput = TrainedInput()


def is_one(folder: Path) -> bool:
    """Whether a folder is not one of edgekd's checkpoints, and has a config.json."""
    return (folder / _CONFIG).is_file() and not (folder / "manifest.json").exists()


def read(folder: Path) -> HubFolder:
    """Read a folder's description.

    Raises:
        ModelError: it is damaged, has no weights, or describes a preprocessing that edgekd does not have.
    """
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{folder} has a {_CONFIG} and no weights", allowed=", ".join(_WEIGHTS))
    config = _json(folder / _CONFIG)
    try:
        is_timm = "architecture" in config
        return HubFolder(
            weights,
            folder / _CONFIG,
            str(config["architecture"]) if is_timm else None,
            _arguments(config.get("model_args") or {}),
            _classes(config),
            checked(timm_input(config) if is_timm else _processor_input(folder)),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"{folder} has a description that cannot be read", found=summary(error)) from None


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """timm writes all that it was built with, also what the data decide."""
    return {name: value for name, value in given.items() if name not in ("num_classes", "in_chans")}


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = config.get("label_names")
    if names is None and (by_number := config.get("id2label")):
        names = [by_number[key] for key in sorted(by_number, key=int)]
    return tuple(map(str, names)) if names else None


def checked(found: TrainedInput) -> TrainedInput:
    """The same, if it is within what a recipe may say. Raises ValueError."""
    described = {key: getattr(found, key) for key in ("image_size", "mean", "std", "crop_pct", "fit", "interpolation")}
    given = {key: value for key, value in described.items() if value is not None}
    channels = {} if found.channels is None else {"channels": found.channels}
    try:
        # Only a crop has a fraction that it leaves.
        whole = {"crop_pct"} if given.get("fit", "crop") != "crop" else set()
        DataSettings.model_validate({"source": "any", **channels, **{k: v for k, v in given.items() if k not in whole}})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the preprocessing"
        raise ValueError(f"{where}: {explain(problem)}") from None
    if found.mean is not None and not all(map(math.isfinite, (*found.mean, *(found.std or ())))):
        raise ValueError("mean or std is not a number")
    return found


def timm_input(config: Mapping[str, Any]) -> TrainedInput:
    """What a config.json of timm's says, in its pretrained_cfg or, from older versions, at its top."""
    published = config.get("pretrained_cfg") or config
    size = published.get("input_size")
    mean, std = _floats(published.get("mean")), _floats(published.get("std"))
    channels = (config.get("model_args") or {}).get("in_chans") or (size[0] if size else 3)
    if channels == 1 and mean is not None and std is not None:
        # timm writes ImageNet's three for networks of one channel too, and takes their means.
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return TrainedInput(
        (int(size[1]), int(size[2])) if size else None,
        mean,
        std,
        _INTERPOLATIONS.get(published.get("interpolation") or ""),
        _float(published.get("crop_pct")),
        _FITS.get(published.get("crop_mode") or "center"),
    )


def _processor_input(folder: Path) -> TrainedInput:
    """Of the preprocessor_config.json that Hugging Face's transformers writes."""
    if not (folder / _PROCESSOR).is_file():
        return TrainedInput()
    described = _json(folder / _PROCESSOR)
    factor = described.get("rescale_factor", _USUAL_FACTOR)
    if not described.get("do_rescale", True) or abs(factor - _USUAL_FACTOR) > 1e-6 or described.get("rescale_offset"):
        raise ValueError(f"{_PROCESSOR}: values are scaled by {factor}, edgekd scales them to [0, 1]")
    plain = not described.get("do_normalize", True)
    mean, std = ([0.0] * 3, [1.0] * 3) if plain else (described.get("image_mean"), described.get("image_std"))
    scaled = _side(described.get("size"))
    cropped = _side(described.get("crop_size")) if described.get("do_center_crop") else None
    percent = _float(described.get("crop_pct"))
    if cropped is not None and scaled is not None and percent is None:
        percent = min(1.0, cropped[0] / scaled[0])
    return TrainedInput(
        cropped or scaled, _floats(mean), _floats(std), _RESAMPLING.get(described.get("resample", 2)), percent
    )


def _side(value: Any) -> Size | None:
    """Of a size as transformers writes them: a number, {"shortest_edge": …} or {"height": …, "width": …}."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        return (int(value["height"]), int(value["width"])) if edge is None else (int(edge), int(edge))
    return int(value), int(value)


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = safe_json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read", found=summary(error)) from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is not a description", found=type(found).__name__, allowed="a JSON object")
    return found
