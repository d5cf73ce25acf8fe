"""The input that a network was trained with, where its weights come with a description of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import plugins
from edgekd.data.sources import source_named
from edgekd.errors import EdgekdError, ModelError
from edgekd.models import hub_folder, timm_training
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.onnx_graph import Signature
from edgekd.models.trained_input import TrainedInput
from edgekd.recipe.code import reference
from edgekd.recipe.onnx_file import onnx_file
from edgekd.recipe.settings import ModelSettings, RecipeSettings, TeacherSettings
from edgekd.runtime.bundle import MANIFEST
from edgekd.runtime.bundle import read as read_bundle
from edgekd.runtime.preprocess import InputShape, Preprocessing, Size

# Published means and standard deviations are rounded to two to four digits.
_ROUNDING = 2e-3


@dataclass(frozen=True)
class Seen:
    """How a network sees the data's images.

    Attributes:
        shape: of its input.
        edit: converts the data's inputs to its own; None where they are alike.
    """

    shape: InputShape
    edit: dict[str, Any] | None = None


def own_input(model: ModelSettings) -> TrainedInput:
    """What is known of the input that a model's weights were trained with; nothing for a new network.

    Raises:
        ModelError: the description in a folder is damaged, or cannot be followed.
        ArtifactError: a checkpoint folder is damaged.
    """
    known = _of_weights(model)
    if isinstance(model, TeacherSettings) and model.input is not None:
        known = replace(known, **{key: value for key, value in model.input if value is not None})
    return known


def with_student_input(recipe: RecipeSettings) -> RecipeSettings:
    """A recipe whose data section has, where it sets nothing, the input that the student's weights were trained with.

    So are the classes in the order in which the weights have them, where these are the images' classes by name.

    Raises:
        ModelError, ArtifactError: as own_input().
    """
    data = recipe.data
    known = own_input(recipe.student)
    if "channels" in data.model_fields_set:
        known = known.seen_in(data.channels)
    found = {name: value for name, value in vars(known).items() if value is not None}
    if known.channels is not None:
        found["channels"] = known.channels
    # What is given for each channel is taken as a whole.
    by_channel = {"mean", "std", "channels"}
    other = "channels" in data.model_fields_set and known.channels != data.channels
    if other or {"mean", "std"} & data.model_fields_set:
        found = {name: value for name, value in found.items() if name not in by_channel}
    if (classes := _classes_of_weights(recipe)) is not None:
        found["classes"] = classes
    taken = {name: value for name, value in found.items() if name not in data.model_fields_set}
    return recipe.model_copy(update={"data": data.model_copy(update=taken)}) if taken else recipe


def seen_by_teacher(teacher: ModelSettings, data: Preprocessing, *, adopted: bool) -> Seen:
    """How a teacher sees images that are prepared for the student: with its own channels and normalisation.

    Args:
        teacher: the recipe's settings.
        data: how the student sees the images.
        adopted: whether the teacher is used as it is; one that is trained on the data has the data's image size.

    Raises:
        ModelError, ArtifactError: as own_input().
    """
    known = own_input(teacher)
    size = known.image_size if adopted and known.image_size is not None else data.image_size
    mean, std = (known.mean, known.std) if known.mean and known.std else (data.mean, data.std)
    edit = None if size == data.image_size and alike(known, data) else _conversion(data, size, mean, std)
    return Seen(InputShape(len(mean), *size), edit)


def seen_by_onnx(file: Path, own: Signature, teacher: TeacherSettings, data: Preprocessing) -> dict[str, Any] | None:
    """The edit that converts the data's inputs to an ONNX file's; None where they are alike.

    Args:
        file: its sizes and channels count; of its normalisation, what the recipe says, or the bundle that it lies in.
        own: the file's signature.
        teacher: the recipe's settings.
        data: how the student sees the images.

    Raises:
        ModelError: nobody says how its images are normalised, or the recipe says other sizes than the file has.
    """
    known = own_input(teacher)
    if known.mean is None or known.std is None:
        raise ModelError(
            f"how {file.name} sees images is not known",
            found="neither teacher.input nor a bundle.json beside it",
            hint="set teacher.input: {mean: […], std: […]}, of values in [0, 1], as in its training",
        )
    if known.image_size is None and 0 in own.shape[1:]:
        raise ModelError(
            f"the image size of {file.name} is not known",
            found="a graph that takes any height or width",
            hint="set teacher.input.image_size to that of its training",
        )
    wanted = known.image_size or data.image_size
    fixed = (own.shape[1] or wanted[0], own.shape[2] or wanted[1])
    if known.image_size is not None and known.image_size != fixed:
        raise ModelError(
            f"{file.name} takes images of another size", found=f"teacher.input.image_size: {wanted}", allowed=fixed
        )
    if len(known.mean) != own.shape[0]:
        raise ModelError(
            f"{file.name} takes images of {own.shape[0]} channels", found=f"a mean of {len(known.mean)}: teacher.input"
        )
    return None if fixed == data.image_size and alike(known, data) else _conversion(data, fixed, known.mean, known.std)


def classes_beside(file: Path) -> tuple[str, ...] | None:
    """The class names in the bundle that an ONNX file lies in; None where there is none."""
    return read_bundle(file.parent).classes if (file.parent / MANIFEST).is_file() else None


def _conversion(data: Preprocessing, size: Size, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    given = {"image_size": list(data.image_size), "mean": list(data.mean), "std": list(data.std)}
    return {"edit": "input", "given": given, "own": {"image_size": list(size), "mean": list(mean), "std": list(std)}}


def alike(known: TrainedInput, data: Preprocessing) -> bool:
    """Whether images are normalised as the weights expect, up to rounding, as far as it is known."""
    pairs = ((known.mean, data.mean), (known.std, data.std))
    return all(
        own is None or (len(own) == len(given) and max(abs(a - b) for a, b in zip(own, given, strict=True)) < _ROUNDING)
        for own, given in pairs
    )


def check_student(model: ModelSettings, data: Preprocessing, *, adopted: bool) -> str | None:
    """Compare the data's normalisation with that of a student's weights.

    Returns:
        A warning where they differ and the student is trained further.

    Raises:
        ModelError: they differ, and the student is used as it is; or as own_input().
    """
    known = own_input(model).seen_in(data.shape.channels)
    if alike(known, data):
        return None
    if known.channels not in (None, data.shape.channels):
        raise ModelError(
            f"the weights of {model.checkpoint or model.model} are for greyscale images",
            found=f"data.channels: {data.shape.channels}",
            allowed=known.channels,
            hint="set data.channels: 1, or choose other weights",
        )
    if adopted:
        raise ModelError(
            f"the weights of {model.checkpoint or model.model} were trained on images with another normalisation",
            found=f"mean {list(data.mean)}, std {list(data.std)}",
            allowed=f"mean {list(known.mean or ())}, std {list(known.std or ())}",
            hint="remove data.mean and data.std: by default they are those of the student's weights",
        )
    return (
        f"The student's weights were trained with mean {list(known.mean or ())} and std {list(known.std or ())}; the "
        "recipe sets others. Without data.mean and data.std those of the weights are taken."
    )


def _classes_of_weights(recipe: RecipeSettings) -> tuple[str, ...] | None:
    """The order of the classes that the weights come with; None where they name none, or others than the images.

    The student's come first, then the teacher's.
    """
    data, source = recipe.data, source_named(recipe.data.source)
    if source.class_names is None or "class_order" in data.model_fields_set:
        return None
    models = [model for model in (recipe.student, recipe.teacher) if model is not None]
    named = next((names for model in models if (names := _named_by(model)) is not None), None)
    if named is None:
        return None
    try:
        found = source.class_names(data)
    except EdgekdError:
        return None  # the data stage says it
    return named if found != named and sorted(found) == sorted(named) else None


def _named_by(model: ModelSettings) -> tuple[str, ...] | None:
    if (file := onnx_file(model.model)) is not None:
        return classes_beside(file)
    folder = model.checkpoint
    if folder is None or not folder.is_dir():
        return None
    return hub_folder.read(folder).classes if hub_folder.is_one(folder) else Checkpoint.load(folder).classes


def _of_weights(model: ModelSettings) -> TrainedInput:
    if model.checkpoint is not None and model.checkpoint.is_dir():
        if hub_folder.is_one(model.checkpoint):
            return hub_folder.read(model.checkpoint).input
        own = Checkpoint.load(model.checkpoint).details.preprocessing
        return TrainedInput(own.image_size, own.mean, own.std, own.interpolation, own.crop_pct, own.fit)
    if (file := onnx_file(model.model)) is not None:
        return _of_bundle(file)
    if model.checkpoint is not None:
        return timm_training.trained_input(model.checkpoint)
    if not model.pretrained or reference(model.model) is not None:
        return TrainedInput()
    source, _, name = model.model.partition("/")
    published: TrainedInput = plugins.load("models", source).published_input(name)
    return published


def _of_bundle(file: Path) -> TrainedInput:
    """Of an ONNX file in a bundle, whose manifest says it."""
    if not (file.parent / MANIFEST).is_file():
        return TrainedInput()
    seen = read_bundle(file.parent).preprocessing
    return TrainedInput(seen.image_size, seen.mean, seen.std, seen.interpolation, seen.crop_pct, seen.fit)
