"""The functions behind `import edgekd`: the whole chain, or the chain up to one stage. Finished stages are reused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edgekd import pipeline
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.classifiers import open_classifier
from edgekd.models.code import permitted
from edgekd.models.factories import reference_to
from edgekd.recipe import load as recipe
from edgekd.recipe.load import Recipe
from edgekd.runtime.accuracy import FolderAccuracy, measure
from edgekd.runtime.model import Model
from edgekd.runtime.set_scores import SetScores, measure_sets

RecipeLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Recipe"
PathLike: TypeAlias = "str | os.PathLike[str]"
# By section of the recipe, functions from `num_classes` and the recipe's `arguments` (keywords) to a torch.nn.Module.
Factories: TypeAlias = "Mapping[str, Callable[..., Any]]"


def run(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
    chain: pipeline.Chain = pipeline.chain,
) -> pipeline.RunResult:
    """Run the whole chain: train or load the teacher, distill, prune, quantize, export, measure, pack, report.

    Args:
        source: a YAML file, the name of a built-in recipe, a mapping, or a checked Recipe.
        out: the run's folder; default: runs/<name>.
        overrides: "key.path=value", as with --set.
        allow_code: run Python code that the recipe or its checkpoints bring. It has your rights: read it first.
        models: networks of your own, by the section of the recipe that they replace: {"student": build}. Each is a
            function (or class) at the top level of a .py file, and the checkpoint carries a copy of that file. This
            is the same as `model: file.py:build` in the section, but needs no allow_code, because your program has
            run the file already.
        chain: the stages in order; edgekd's own, or one with stages of yours.

    Returns:
        The run's artifacts, and the paths of its folder, its bundle and its report.

    Raises:
        RecipeError: all mistakes in the recipe at once.
        UsageError: the recipe brings code that was not allowed, or a network is not defined in a file.
        RunLockedError: another run is working in the folder.
        EdgekdError: a stage failed; finished stages are kept.

    Example:
        >>> import edgekd
        >>> recipe = {
        ...     "name": "tiny",
        ...     "data": {"source": "digits", "image_size": 16, "limit": 64},
        ...     "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1}},
        ...     "student": {"model": "cifar/resnet8"},
        ...     "distill": {"epochs": 1, "baseline": False},
        ...     "export": {"variants": ["fp32"]},
        ...     "bench": {"batch_sizes": [1], "seconds": 0.05},
        ... }
        >>> result = edgekd.run(recipe)
        >>> str(result.bundle), result.report.is_file()
        ('runs/tiny/bundle', True)
        >>> student, = [row for row in result.made.scores.rows if row["role"] == "student"]
        >>> 0.0 <= student["accuracy"] <= 1.0
        True
    """
    loaded = _recipe(source, overrides, allow_code, models)
    with permitted(loaded.code):
        return pipeline.run(loaded, _folder(loaded, out), chain=chain)


def train(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """Run the chain up to the teacher. Args and Raises as run().

    Returns:
        The teacher.
    """
    return _checkpoint("teacher", _recipe(source, overrides, allow_code, models), out)


def distill(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """Run the chain up to the distilled student. Args and Raises as run().

    Returns:
        The student.
    """
    return _checkpoint("distill", _recipe(source, overrides, allow_code, models), out)


def prune(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """Run the chain up to the pruned and recovered student. Args as run().

    Returns:
        The recovered student.

    Raises:
        UsageError: the recipe has no prune section. Else as run().
    """
    return _checkpoint("prune", _recipe(source, overrides, allow_code, models), out)


def quantize(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """Run the chain up to the network with int8 quantizers. Args as run().

    Returns:
        The quantized network, as it ships.

    Raises:
        UsageError: the recipe has no quantize section. Else as run().
    """
    return _checkpoint("quantize", _recipe(source, overrides, allow_code, models), out)


def export_bundle(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Path:
    """Run the chain up to the bundle. Args and Raises as run().

    Returns:
        The bundle's folder, which an app loads.
    """
    loaded = _recipe(source, overrides, allow_code, models)
    folder = _folder(loaded, out)
    with permitted(loaded.code):
        pipeline.run_until("bundle", loaded, folder)
    return folder / "bundle"


def evaluate(
    model: PathLike,
    images: PathLike,
    *,
    variant: str | None = None,
    backend: str | None = None,
    like: PathLike | None = None,
    allow_code: bool = False,
) -> FolderAccuracy | SetScores:
    """Accuracy, calibration and worst mistakes of a model on a folder with one subfolder of images per class.

    Args:
        model: a bundle's folder, a checkpoint's folder, or a file that an engine opens, such as an ONNX graph.
        images: the folder of images, as images/<class>/…, or a table with columns such as file,label; for a bundle of
            several labels per image a table.
        variant: of the bundle; default: the one that the engine prefers.
        backend: an inference engine by name; default: as edgekd.runtime.load chooses.
        like: for a file, a bundle or a checkpoint with its classes and preprocessing.
        allow_code: run the code of a network of your own that a checkpoint carries.

    Raises:
        UsageError: an option that does not apply to the model, a file without `like`, or code that was not allowed.
        BundleError, ArtifactError, BackendError: the model cannot be opened.
        UnknownNameError: no such backend or variant.
        DataError: no readable images, or classes that the model does not have.
    """
    opened = open_classifier(
        Path(model),
        variant=variant,
        backend=backend,
        like=Path(like) if like is not None else None,
        allow_code=allow_code,
    )
    if isinstance(opened, Model) and opened.manifest.task == "multilabel":
        return measure_sets(opened, Path(images))
    return measure(opened, Path(images))


def _checkpoint(stage: str, loaded: Recipe, out: PathLike | None) -> Checkpoint:
    with permitted(loaded.code):
        artifact = pipeline.run_until(stage, loaded, _folder(loaded, out))
    assert isinstance(artifact, Checkpoint)
    return artifact


def _recipe(source: RecipeLike, overrides: Sequence[str], allow_code: bool, models: Factories | None) -> Recipe:
    references = {section: reference_to(factory) for section, factory in (models or {}).items()}
    if isinstance(source, Recipe):
        if given := [*references, *recipe.list_of(overrides)]:
            raise UsageError(
                "models and overrides cannot be set in a recipe that is already checked",
                found=", ".join(given),
                hint="pass the recipe's file, name or mapping instead",
            )
        return source
    values = [
        *recipe.list_of(overrides),
        *(f"{section}.model={json.dumps(str(own))}" for section, own in references.items()),
    ]
    allowed = allow_code or {own.path for own in references.values()}
    if isinstance(source, Mapping):
        return recipe.from_mapping(source, values, allow_code=allowed)
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(
            "not a recipe",
            found=f"an object of type {type(source).__name__}",
            allowed="a YAML file's path, the name of a built-in recipe, a mapping, or a Recipe",
        )
    return recipe.load(source if isinstance(source, str) else Path(source), values, allow_code=allowed)


def _folder(loaded: Recipe, out: PathLike | None) -> Path:
    return Path(out) if out is not None else Path("runs") / loaded.settings.name
