"""What is found in the images while a data set is prepared: the metrics of its manifest."""

from __future__ import annotations

from typing import Literal

from edgekd.store.records import Count, Frozen, Metrics


class LeakPair(Frozen):
    """Images that occur in two splits; `examples` are pairs of file names."""

    splits: tuple[str, str]
    count: Count
    examples: tuple[tuple[str, str], ...]


class Leaks(Frozen):
    policy: str
    pairs: tuple[LeakPair, ...]
    dropped: dict[str, Count]


class Broken(Frozen):
    count: Count
    examples: tuple[str, ...]


class LabelledImage(Frozen):
    """An image's file, and its label; of several labels all, with "+" between them."""

    file: str
    label: str


class DatasetMetrics(Metrics):
    """What was found while the data set was prepared; see edgekd.data.prepare.

    Attributes:
        conflicting_labels: the number of distinct images that occur with more than one label.
        conflicts: the first of them: equal images, of each label at least one where there are not too many.
        left_out: what is not an image, in words.
        split_off: the splits that the source does not have.
        classes: how many images each class has in each split; empty without labels.
    """

    leaks: Leaks = Leaks(policy="keep", pairs=(), dropped={})
    duplicates: dict[str, Count] = {}
    conflicting_labels: Count = 0
    conflicts: tuple[tuple[LabelledImage, ...], ...] = ()
    broken: Broken = Broken(count=0, examples=())
    left_out: str = ""
    class_order: Literal["name", "natural", "given"] | None = None
    split_off: tuple[str, ...] = ()
    classes: dict[str, dict[str, Count]] = {}
