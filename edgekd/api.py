"""The verbs behind `import edgekd`: the chain, whole or up to one link. Finished links are reused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edgekd import pipeline
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe import load as recipe
from edgekd.recipe.load import Recipe
from edgekd.runtime import load
from edgekd.runtime.accuracy import FolderAccuracy, measure

RecipeLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Recipe"
PathLike: TypeAlias = "str | os.PathLike[str]"


def run(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> pipeline.RunResult:
    """Run the whole chain.

    Args:
        source: a YAML file, a built-in name, a mapping, or a checked Recipe.
        out: the run's folder; default runs/<name>.
        overrides: "key.path=value", as with --set.

    Raises:
        RecipeError: every mistake of the recipe at once.
        EdgekdError: as each stage says; what was finished stays.
    """
    loaded = _recipe(source, overrides)
    return pipeline.run(loaded, _folder(loaded, out))


def train(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> Checkpoint:
    """The chain up to the teacher. Args and Raises as run()."""
    return _checkpoint("teacher", source, out, overrides)


def distill(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> Checkpoint:
    """The chain up to the distilled student. Args and Raises as run()."""
    return _checkpoint("distill", source, out, overrides)


def prune(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> Checkpoint:
    """The chain up to the pruned and recovered student. Args and Raises as run().

    Raises:
        UsageError: the recipe has no prune section.
    """
    return _checkpoint("prune", source, out, overrides)


def quantize(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> Checkpoint:
    """The chain up to the network with int8 quantizers, as it ships. Args and Raises as run().

    Raises:
        UsageError: the recipe has no quantize section.
    """
    return _checkpoint("quantize", source, out, overrides)


def export_bundle(source: RecipeLike, out: PathLike | None = None, overrides: Sequence[str] = ()) -> Path:
    """The chain up to the bundle: the folder that an app loads. Args and Raises as run()."""
    loaded = _recipe(source, overrides)
    folder = _folder(loaded, out)
    pipeline.run_until("bundle", loaded, folder)
    return folder / "bundle"


def evaluate(
    bundle: PathLike, images: PathLike, *, variant: str | None = None, backend: str | None = None
) -> FolderAccuracy:
    """Accuracy of a bundle on a folder with one subfolder of images a class.

    Raises:
        BundleError, BackendError: as edgekd.runtime.load.
        DataError: no readable images, or classes that the bundle does not know.
    """
    return measure(load(bundle, variant=variant, backend=backend), Path(images))


def _checkpoint(stage: str, source: RecipeLike, out: PathLike | None, overrides: Sequence[str]) -> Checkpoint:
    loaded = _recipe(source, overrides)
    made = pipeline.run_until(stage, loaded, _folder(loaded, out))
    assert isinstance(made, Checkpoint)
    return made


def _recipe(source: RecipeLike, overrides: Sequence[str]) -> Recipe:
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Mapping):
        return recipe.from_mapping(source, overrides)
    return recipe.load(Path(source) if not isinstance(source, str) else source, overrides)


def _folder(loaded: Recipe, out: PathLike | None) -> Path:
    return Path(out) if out is not None else Path("runs") / loaded.settings.name
