"""The verbs behind `import edgekd`: the chain, whole or up to one link. Finished links are reused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edgekd import pipeline
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.code import permitted
from edgekd.models.factories import reference_to
from edgekd.recipe import load as recipe
from edgekd.recipe.load import Recipe
from edgekd.runtime import load
from edgekd.runtime.accuracy import FolderAccuracy, measure

RecipeLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Recipe"
PathLike: TypeAlias = "str | os.PathLike[str]"
# By the recipe's section: from `num_classes` and the recipe's `arguments`, as keywords, to a torch.nn.Module.
Factories: TypeAlias = "Mapping[str, Callable[..., Any]]"


def run(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> pipeline.RunResult:
    """Run the whole chain.

    Args:
        source: a YAML file, a built-in name, a mapping, or a checked Recipe.
        out: the run's folder; default runs/<name>.
        overrides: "key.path=value", as with --set.
        allow_code: let Python code run that the recipe or its checkpoints bring, with your rights: look at it first.
        models: networks of your own, by the section of the recipe that they stand for: {"student": build}. Each is a
            function (or class) at the top level of a .py file, of which the checkpoint carries a copy. It is the
            same as `model: file.py:build` in this section, and needs no allow_code: you have run this file already.

    Raises:
        RecipeError: every mistake of the recipe at once.
        UsageError: the recipe brings code that was not allowed, or a network is not defined in a file.
        EdgekdError: as each stage says; what was finished stays.
    """
    loaded = _recipe(source, overrides, allow_code, models)
    with permitted(loaded.code):
        return pipeline.run(loaded, _folder(loaded, out))


def train(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """The chain up to the teacher. Args and Raises as run()."""
    return _checkpoint("teacher", _recipe(source, overrides, allow_code, models), out)


def distill(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """The chain up to the distilled student. Args and Raises as run()."""
    return _checkpoint("distill", _recipe(source, overrides, allow_code, models), out)


def prune(
    source: RecipeLike,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    models: Factories | None = None,
) -> Checkpoint:
    """The chain up to the pruned and recovered student. Args and Raises as run().

    Raises:
        UsageError: the recipe has no prune section.
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
    """The chain up to the network with int8 quantizers, as it ships. Args and Raises as run().

    Raises:
        UsageError: the recipe has no quantize section.
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
    """The chain up to the bundle: the folder that an app loads. Args and Raises as run()."""
    loaded = _recipe(source, overrides, allow_code, models)
    folder = _folder(loaded, out)
    with permitted(loaded.code):
        pipeline.run_until("bundle", loaded, folder)
    return folder / "bundle"


def evaluate(
    bundle: PathLike, images: PathLike, *, variant: str | None = None, backend: str | None = None
) -> FolderAccuracy:
    """Accuracy of a bundle on a folder with one subfolder of images per class.

    Raises:
        BundleError, BackendError: as edgekd.runtime.load.
        DataError: no readable images, or classes that the bundle does not know.
    """
    return measure(load(bundle, variant=variant, backend=backend), Path(images))


def _checkpoint(stage: str, loaded: Recipe, out: PathLike | None) -> Checkpoint:
    with permitted(loaded.code):
        made = pipeline.run_until(stage, loaded, _folder(loaded, out))
    assert isinstance(made, Checkpoint)
    return made


def _recipe(source: RecipeLike, overrides: Sequence[str], allow_code: bool, models: Factories | None) -> Recipe:
    references = {section: reference_to(factory) for section, factory in (models or {}).items()}
    if isinstance(source, Recipe):
        if references:
            raise UsageError(
                "models cannot be put into a recipe that was checked already",
                found=", ".join(references),
                hint="pass the recipe's file, name or mapping instead",
            )
        return source
    words = [*overrides, *(f"{section}.model={json.dumps(str(own))}" for section, own in references.items())]
    allowed = allow_code or {own.path for own in references.values()}
    if isinstance(source, Mapping):
        return recipe.from_mapping(source, words, allow_code=allowed)
    return recipe.load(Path(source) if not isinstance(source, str) else source, words, allow_code=allowed)


def _folder(loaded: Recipe, out: PathLike | None) -> Path:
    return Path(out) if out is not None else Path("runs") / loaded.settings.name
