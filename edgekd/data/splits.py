"""Stratified, seeded assignment of images to splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data.sources import Labels
from edgekd.errors import DataError
from edgekd.wording import counted

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
_NAMED = 10


def carve(
    labels: Labels, contents: Labels, classes: Sequence[str], share: float, seed: Sequence[int], *, leave: int = 1
) -> Mask:
    """Choose the images of a new split: a fraction `share` of each class, at least one and never all.

    Equal images stay together, so that splitting never creates a leak.

    Args:
        labels: (N,).
        contents: (N,), equal numbers for equal images.
        classes: the class names, for messages.
        share: fraction to choose.
        seed: of the choice.
        leave: how many different images of each class remain at least, one for each split to come and for training.

    Returns:
        (N,), True for the images of the new split.

    Raises:
        DataError: a class has fewer than 1 + leave different images.
    """
    distinct, first, inverse = np.unique(contents, return_index=True, return_inverse=True)
    counts = np.bincount(labels[first], minlength=len(classes))
    if (counts <= leave).any():
        pairs = np.unique(np.stack([labels, contents]), axis=1)
        raise _too_few(classes, counts, np.bincount(pairs[0], minlength=len(classes)), leave + 1)
    quotas = np.clip(np.rint(counts * share).astype(np.int64), 1, counts - leave)
    chosen: Mask = draw(labels[first], quotas, np.random.default_rng(seed))[inverse]
    return chosen


def carve_sets(labels: Labels, contents: Labels, share: float, seed: Sequence[int]) -> Mask:
    """Choose the images of a new split where an image has several labels: about a fraction `share` of each class.

    The rarest class is served first, since later ones have more images to choose from (iterative stratification,
    Sechidis, Tsoumakas and Vlahavas 2011, with whole classes as steps). The only image of a class is not chosen.

    Args:
        labels: (N, C), 1 where an image has the class.
        contents, share, seed: as in carve().

    Returns:
        (N,), True for the images of the new split.
    """
    _, first, inverse = np.unique(contents, return_index=True, return_inverse=True)
    own, generator = labels[first].astype(bool), np.random.default_rng(seed)
    chosen, free = np.zeros(len(own), dtype=np.bool_), np.ones(len(own), dtype=np.bool_)
    counts = own.sum(0)
    groups = [own[:, label] for label in np.argsort(counts, kind="stable")]
    for members in (*groups, ~own.any(1)):
        count = int(members.sum())
        wanted = min(max(round(count * share), 1), count - 1) - int((members & chosen).sum())
        open_ones = np.flatnonzero(members & free)
        chosen[generator.permutation(open_ones)[: max(wanted, 0)]] = True
        free[open_ones] = False
    mask: Mask = chosen[inverse]
    return mask


def draw(labels: Labels, quotas: Counts, generator: np.random.Generator) -> Mask:
    """Choose quotas[c] images of each class c at random: (N,), True for the chosen."""
    shuffled = generator.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=len(quotas))
    position_in_class = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    chosen = np.zeros(len(labels), dtype=np.bool_)
    chosen[order[position_in_class < quotas[labels[order]]]] = True
    return chosen


def proportional(counts: Counts, total: int) -> Counts:
    """Distribute `total` in proportion to `counts`: at least one each, never more than the count.

    Raises:
        DataError: `total` is less than one for each class.
    """
    available = int(counts.sum())
    if total >= available:
        return counts
    if total < len(counts):
        raise DataError(
            "data.limit leaves classes without an image", found=total, allowed=f"at least {len(counts)}, one per class"
        )
    exact = total * counts / available
    quotas: Counts = np.maximum(1, np.floor(exact)).astype(np.int64)
    missing = total - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[: max(missing, 0)]] += 1
    for _ in range(-missing):  # small classes got more than their share, so large ones get less
        quotas[np.argmax(np.where(quotas > 1, quotas - exact, -np.inf))] -= 1
    return quotas


def _too_few(classes: Sequence[str], counts: Counts, own: Counts, needed: int) -> DataError:
    """The refusal to split.

    Args:
        classes: their names.
        counts: the distinct images of each class; one with two labels counts in the class where it occurs first.
        own: the distinct images of each class, such ones included.
        needed: how many each class needs.
    """
    few = [
        f"{name} ({count}{f', and {each - count} with another label too' if each > count else ''})"
        for name, count, each in zip(classes, counts.tolist(), own.tolist(), strict=True)
        if count < needed
    ]
    have = "has" if len(few) == 1 else "have"
    return DataError(
        f"{counted(len(few), 'class')} {have} too few distinct images to be split",
        found=", ".join(few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""),
        allowed=f"{needed} or more in each class, one for each split",
        hint="add images to these classes, or remove the classes; or provide the splits: docs/data.md says how",
    )
