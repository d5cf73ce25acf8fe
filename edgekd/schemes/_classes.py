"""Networks and data sets whose classes are subsets or groups of another data set's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.data import storage
from edgekd.data.dataset import Dataset, open_split
from edgekd.data.sources import SPLITS
from edgekd.errors import UsageError
from edgekd.recipe.settings import ModelSettings

Groups = Sequence[Sequence[str]]


def check_disjoint(groups: Groups, where: str) -> None:
    """Check groups without knowing the data's classes.

    Args:
        groups: the names of the classes in each group.
        where: the key that holds them, for the message.

    Raises:
        UsageError: fewer than two groups, an empty one, or a class that occurs twice.
    """
    if len(groups) < 2 or not all(groups):
        raise UsageError(f"{where}: these are not groups of classes", found=groups, allowed="two or more, none empty")
    twice = [name for name, count in Counter(name for group in groups for name in group).items() if count > 1]
    if twice:
        raise UsageError(f"{where}: every class is in one group", found=f"more than once: {', '.join(twice)}")


def check_partition(groups: Groups, classes: Sequence[str], where: str) -> None:
    """Check groups against the data's classes.

    Args:
        groups: the names of the classes in each group.
        classes: the data's.
        where: the key that holds the groups, for the message.

    Raises:
        UsageError: not every class is in exactly one group; see also check_disjoint().
    """
    check_disjoint(groups, where)
    named = [name for group in groups for name in group]
    missing, unknown = ([name for name in a if name not in b] for a, b in ((classes, named), (named, classes)))
    if missing or unknown:
        parts = (("in no group", missing), ("not a class of the data", unknown))
        raise UsageError(
            f"{where}: the groups are not a partition of the data's classes",
            found="; ".join(f"{what}: {', '.join(names[:10])}" for what, names in parts if names),
            allowed=f"each of {', '.join(classes[:20])} once",
        )


def unpublished(model: ModelSettings) -> ModelSettings:
    """The same model without published weights, so that a check of its shape downloads nothing."""
    return model.model_copy(update={"pretrained": False})


def relabel(data: Dataset, groups: Mapping[str, Sequence[str]], out: Path, *, where: str) -> Dataset:
    """The same images under coarser labels; their files are linked, not copied, if the disk supports it.

    Args:
        data: the data set.
        groups: the new classes, in order, each with those of `data` that it means.
        where: the key that holds the groups, for the message.
        out: an empty folder, which becomes the data set.

    Raises:
        UsageError: not every class is in exactly one group.
    """
    check_partition(list(groups.values()), data.classes, where)
    of = {name: group for group, names in enumerate(groups.values()) for name in names}
    table = np.array([of[name] for name in data.classes], dtype=np.int64)
    labels = {split: storage.labels_file(out, split) for split in SPLITS}
    for file in data.manifest.files:
        if out / file not in labels.values():
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            storage.link_or_copy(data.path / file, out / file)
    for split, target in labels.items():
        np.save(target, table[open_split(data, split).labels])
    counts = {split: np.bincount(np.load(target), minlength=len(groups)).tolist() for split, target in labels.items()}
    per_class = {split: dict(zip(groups, count, strict=True)) for split, count in counts.items()}
    details = data.details.model_copy(update={"classes": tuple(groups)})
    return Dataset.seal(out, details=details, metrics={**data.metrics, "classes": per_class})
