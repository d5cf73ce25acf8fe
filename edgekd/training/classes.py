"""The classes that a trained network answers with, where the images do not tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import UsageError
from edgekd.models import hub_folder
from edgekd.models.build import published_class_names, published_classes
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import DataSettings, ModelSettings
from edgekd.training.start import start


def class_names(model: ModelSettings, data: DataSettings) -> tuple[str, ...]:
    """One name per logit: those in the recipe, those that come with the weights, or else "class 0", "class 1", …

    Args:
        model: with trained weights.
        data: with the names in the recipe, if there are any.

    Raises:
        UsageError: the recipe's file of names cannot be read, a name is in it twice, or it has more or fewer than the
            network has logits.
        EdgekdError: as start().
    """
    known = _known(model, data)
    if data.classes is None:
        return known
    given = _read(data.classes) if isinstance(data.classes, Path) else data.classes
    if twice := [name for name, count in Counter(given).items() if count > 1]:
        raise UsageError("data.classes has a name twice", found=twice[0])
    if len(given) != len(known):
        raise UsageError(
            "data.classes does not fit the student",
            found=f"{len(given)} names",
            allowed=f"{len(known)}, one per logit of {model.model} with these weights",
        )
    return given


def _known(model: ModelSettings, data: DataSettings) -> tuple[str, ...]:
    folder = model.checkpoint if model.checkpoint is not None and model.checkpoint.is_dir() else None
    if folder is not None and not hub_folder.is_one(folder):
        return Checkpoint.load(folder).classes
    if folder is not None and (named := hub_folder.read(folder).classes) is not None:
        return named
    if model.pretrained:
        names, count = published_class_names(model.model), published_classes(model.model)
        return _distinct(names) if len(names) == count else _numbered(count)
    # A network of two classes: if the weights are for more, the last layer is all that differs.
    begun = start(model, data.preprocessing, ("0", "1"), adopted=False)
    return _numbered(2 if begun.head is None else begun.head.before)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which none stands for two classes: ImageNet has two cranes."""
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))


def _read(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"data.classes: {file} cannot be read", found=str(error), allowed="a text file with one name per line"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
