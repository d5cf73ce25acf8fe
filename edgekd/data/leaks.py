"""Finds images that occur in two splits: accuracy on training images does not measure generalisation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from edgekd.data.dataset import Dataset, Split, open_split
from edgekd.data.sources import SPLITS, Labels, SplitName
from edgekd.errors import DataError
from edgekd.runtime.cores import usable_cores
from edgekd.runtime.preprocess import Pixels
from edgekd.store.artifacts import Json

Policy = Literal["drop", "refuse", "report"]
Rows = dict[SplitName, Labels]
_EXAMPLES = 5
_HASHED_AT_ONCE = 256


@dataclass(frozen=True)
class Leak:
    """Images that occur in two splits: the number of distinct ones, and examples as pairs of names."""

    splits: tuple[SplitName, SplitName]
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LeakReport:
    """The leaks found, and how many images were dropped from each split."""

    policy: Policy
    pairs: tuple[Leak, ...]
    dropped: Mapping[SplitName, int] = field(default_factory=dict)

    def to_json(self) -> Json:
        pairs = [
            {"splits": list(p.splits), "count": p.count, "examples": [list(e) for e in p.examples]} for p in self.pairs
        ]
        return {"policy": self.policy, "pairs": pairs, "dropped": dict(self.dropped)}


def close_leaks(rows: Rows, contents: Labels, policy: Policy, name: Callable[[int], str]) -> tuple[Rows, LeakReport]:
    """Find equal images in different splits, and remove them from the split that trains.

    Args:
        rows: the images of each split, as positions in `contents`.
        contents: (N,), equal numbers for equal images.
        policy: what to do with leaks.
        name: the name of the image at a position, for messages.

    Returns:
        The rows that remain (changed only by "drop"), and the report.

    Raises:
        DataError: there are leaks and the policy is "refuse".
    """
    pairs = tuple(leak for pair in combinations(SPLITS, 2) if (leak := _leak(rows, contents, pair, name)).count)
    if pairs and policy == "refuse":
        raise _refusal(pairs)
    if policy != "drop":
        return rows, LeakReport(policy, pairs)
    kept = dict(rows)
    for position, split in enumerate(SPLITS):
        for held_out in SPLITS[position + 1 :]:
            kept[split] = kept[split][~np.isin(contents[kept[split]], contents[rows[held_out]])]
    dropped = {split: lost for split in SPLITS if (lost := len(rows[split]) - len(kept[split]))}
    return kept, LeakReport(policy, pairs, dropped)


def conflicting_labels(contents: Labels, labels: Labels) -> list[list[int]]:
    """The distinct images that have more than one label.

    Args:
        contents: (N,), equal numbers for equal images.
        labels: (N,), equal numbers for equal labels.

    Returns:
        For each its positions, those with the first image of each label before the others.
    """
    distinct, first = np.unique(np.stack([contents, labels]), axis=1, return_index=True)
    numbers, counts = np.unique(distinct[0], return_counts=True)
    found: dict[int, list[int]] = {}
    repeated = np.setdiff1d(np.arange(len(contents)), first)
    for position in (*np.sort(first).tolist(), *repeated.tolist()):
        found.setdefault(int(contents[position]), []).append(position)
    return [found[number] for number in sorted(numbers[counts > 1].tolist(), key=lambda each: found[each])]


def contents(split: Split, rows: Labels | None = None) -> list[bytes]:
    """A digest of each image's stored pixels: equal images have equal digests, also across data sets."""
    rows = np.arange(len(split)) if rows is None else rows
    blocks = [rows[start : start + _HASHED_AT_ONCE] for start in range(0, len(rows), _HASHED_AT_ONCE)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(lambda block: [_digest(image) for image in split.pixels(block)], blocks)
        return [digest for block in found for digest in block]


def measured_contents(data: Dataset) -> set[bytes]:
    """The digests of a data set's validation and test images, which must not be trained on."""
    return {digest for split in ("validation", "test") for digest in contents(open_split(data, split))}


def shared_rows(data: Dataset, split: SplitName, others: Iterable[Dataset]) -> Labels:
    """The images of a split that also occur in the validation or test split of other data sets.

    Args:
        data: the data set.
        split: of the data set.
        others: data sets with images of the same size; else equal images have different pixels.

    Returns:
        The images' positions in the split, in order.

    Raises:
        DataError: the sizes differ, or an image of a streamed split can no longer be read.
    """
    measured: set[bytes] = set()
    for other in others:
        sizes = [d.details.preprocessing.stored for d in (data, other)]
        if sizes[0] != sizes[1]:
            raise DataError(
                "data sets with images of different sizes cannot be compared for equal images",
                found=f"{sizes[0]} and {sizes[1]} (height, width, channels)",
                hint="set the same image_size, fit and channels for both",
            )
        measured |= measured_contents(other)
    return np.flatnonzero([digest in measured for digest in contents(open_split(data, split))])


def _digest(image: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _leak(rows: Rows, contents: Labels, splits: tuple[SplitName, SplitName], name: Callable[[int], str]) -> Leak:
    one, other = (rows[split] for split in splits)
    shared, in_one, in_other = np.intersect1d(contents[one], contents[other], return_indices=True)
    some = np.argsort(in_one)[:_EXAMPLES]
    examples = tuple((name(int(one[in_one[i]])), name(int(other[in_other[i]]))) for i in some)
    return Leak(splits, len(shared), examples)


def _refusal(pairs: tuple[Leak, ...]) -> DataError:
    counts = ", ".join(f"{pair.count} in {pair.splits[0]} and {pair.splits[1]}" for pair in pairs)
    examples = "; ".join(f"{one} = {other}" for pair in pairs for one, other in pair.examples)
    return DataError(
        f"equal images occur in two splits: {counts}",
        found=examples,
        hint="remove one of each pair, or set data.leaks: drop to remove them from the split that trains",
    )
