"""The classes that a trained network answers with, where the images do not tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
        UsageError: the recipe has more names than the network has logits, or fewer.
        EdgekdError: as start().
    """
    known = _known(model, data)
    if data.classes is None:
        return known
    if len(data.classes) != len(known):
        raise UsageError(
            "data.classes does not fit the student",
            found=f"{len(data.classes)} names",
            allowed=f"{len(known)}, one per logit of {model.model} with these weights",
        )
    return data.classes


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
