"""How timm's trainer prepared its images: the arguments that it saves beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError
from edgekd.models.hub_folder import checked, timm_input
from edgekd.models.pickled import contents_of
from edgekd.models.torch_files import Arguments, read
from edgekd.models.trained_input import TrainedInput

# What timm's trainer saves beside the weights; the arguments of other trainers have other meanings by the same names.
_SAVED = frozenset({"arch", "args", "state_dict"})


def trained_input(file: Path) -> TrainedInput:
    """What the arguments in a file of weights say, where they are set and a recipe could say them too.

    What is not set was the default of the network's published weights then, which a file does not say. Nothing is known
    of a file of another trainer, and of one that cannot be read, which is reported where its weights are read.
    """
    if not file.is_file() or file.suffix == ".safetensors":
        return TrainedInput()
    try:
        saved = read(file, contents_of(file), mapped=True)
    except ModelError:
        return TrainedInput()
    if not isinstance(saved, Mapping) or not saved.keys() >= _SAVED or not isinstance(saved["args"], Arguments):
        return TrainedInput()
    given = {name: value for name, value in saved["args"].values.items() if value not in (None, "")}
    try:
        found = checked(timm_input(_as_config(given)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError):
        return TrainedInput()
    return found if "crop_mode" in given else replace(found, fit=None)


def warning_of(file: Path, role: str) -> str | None:
    """A sentence with what is taken from a file's arguments; None where it has none."""
    known = {name: value for name, value in vars(trained_input(file)).items() if value is not None}
    if not known:
        return None
    values = ", ".join(f"{name} {list(value) if isinstance(value, tuple) else value}" for name, value in known.items())
    return (
        f"{role}.checkpoint holds the arguments of its training with timm. Images are prepared with them, where the "
        f"recipe sets nothing else: {values}."
    )


def _as_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """As timm's resolve_data_config reads them, in the form of its config.json. Raises as the values' types do."""
    side = given.get("img_size")
    channels = int(given.get("in_chans", 3))
    size = given.get("input_size", None if side is None else (channels, side, side))
    if size is not None:
        channels, _, _ = size
    described: dict[str, Any] = {name: given.get(name) for name in ("interpolation", "crop_pct", "crop_mode")}
    for name in ("mean", "std"):
        values = given.get(name)
        if values is not None and len(values) not in (1, channels):
            raise ValueError(f"{name} of {len(values)} values for {channels} channels")
        described[name] = values if values is None or len(values) == channels else list(values) * channels
    return {**described, "input_size": size, "model_args": {"in_chans": channels}}
