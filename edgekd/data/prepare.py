"""Prepares a data set: decode once, split, handle leaks, store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.data import quality, storage
from edgekd.data.class_names import warnings_of
from edgekd.data.dataset import Dataset, DatasetDetails, Reopen
from edgekd.data.decode import BROKEN_NAMED, check_broken, check_range, decode_all, mixed_depths, white_of
from edgekd.data.findings import LabelledImage
from edgekd.data.leaks import Rows, close_leaks, conflicting_labels
from edgekd.data.sources import SPLITS, Labels, RawData, SplitName, source_named
from edgekd.data.splits import Mask, carve, carve_sets, draw, proportional
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.images import printable
from edgekd.runtime.preprocess import Pixels, Preprocessing, lost_by_crop
from edgekd.store.artifacts import Json
from edgekd.wording import counted

VERSION = 7

Progress = Callable[[int, int], None]
_TEST, _VALIDATION, _LIMIT = range(3)
# Of images with more than one label, and of images that are equal to one of them, as many are listed in manifests.
_CONFLICTS_NAMED = 50
_EQUAL_NAMED = 10


@dataclass(frozen=True)
class _Images:
    """All images of a source, its splits concatenated; a position is an index into all of them.

    Attributes:
        labels: (N,), or (N, C) with several labels per image.
        contents: (N,), equal numbers for equal images, -1 for broken ones.
        problems: one line per broken image.
        pixels: (N, H, W, C) for a cached data set; else None.
        deep: positions of the greyscale images of more than 8 bits or of float values.
        outside: one line per image whose values lie outside of their range.
        lost: the fraction of a typical image that the crop to the ratio of image_size discards.
    """

    raw: RawData
    labels: Labels
    contents: Labels
    problems: tuple[str, ...]
    pixels: Pixels | None
    lost: float = 0.0
    deep: tuple[int, ...] = ()
    outside: tuple[str, ...] = ()

    @property
    def strata(self) -> tuple[Labels, tuple[str, ...]]:
        """(N,) what splits are drawn in proportion to, and its names: the classes, or without labels all images."""
        if self.raw.labelled:
            return self.labels, self.raw.classes
        return np.zeros_like(self.labels), ("the images",)

    @property
    def starts(self) -> dict[SplitName, int]:
        sizes = [len(samples) for samples in self.raw.splits.values()]
        return dict(zip(self.raw.splits, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))

    def readable(self, split: SplitName) -> Labels:
        """Positions of the split's images that are not broken."""
        start = self.starts[split]
        stop = start + len(self.raw.splits[split])
        return start + np.flatnonzero(self.contents[start:stop] >= 0)

    def origin(self, position: int) -> SplitName:
        """The split of the source that an image is in."""
        return max((s for s in self.raw.splits if self.starts[s] <= position), key=self.starts.__getitem__)

    def name(self, position: int) -> str:
        split = self.origin(position)
        return printable(self.raw.splits[split].name(position - self.starts[split]))

    def label(self, position: int) -> str:
        own = self.labels[position]
        named = [self.raw.classes[place] for place in (np.flatnonzero(own) if own.ndim else [own])]
        return printable(" + ".join(named)) or "no class"


def prepare(settings: DataSettings, out: Path, *, progress: Progress | None = None) -> Dataset:
    """Read a source, split it, and store it as train, validation and test.

    Args:
        out: an empty folder, which becomes the data set.
        progress: called with (images decoded, images in total).

    Raises:
        UnknownNameError: no such source.
        DataError: the source cannot be read, too many images are broken or have values outside of their range, a split
            lacks a class, or there are leaks and the recipe refuses them.
        OSError: the disk is full.
    """
    source = source_named(settings.source, where="data.source")
    raw = source.read(settings)
    preprocessing = settings.preprocessing
    white = white_of(raw.splits["train"]) if settings.depth == "auto" else preprocessing.white
    if white is not None:
        preprocessing = replace(preprocessing, white=white)
    shape = (sum(map(len, raw.splits.values())), *preprocessing.stored)
    stored = storage.choose(settings.storage, shape, out)
    room = storage.scratch(out / ".decoded.npy", shape) if stored == "cached" else nullcontext()
    with room as pixels:
        images = _decode(raw, preprocessing, pixels, progress)
        check_broken(images.problems, len(images.labels), settings.broken)
        if white is None and images.deep:
            raise mixed_depths([images.name(position) for position in images.deep], len(images.labels))
        check_range(images.outside, len(images.labels), preprocessing.white)
        rows, report = _select(images, settings)
        for split in SPLITS:
            _store(images, rows[split], split, out)
        # Of the split whose images are looked at one by one.
        storage.write_names(out, "test", [images.name(position) for position in rows["test"].tolist()])
    reopen = None
    if stored == "streamed":
        root = None if settings.root is None else str(settings.root.absolute())
        reopen = Reopen(root=root, fingerprint=source.fingerprint(settings), options=source.options_of(settings))
    details = DatasetDetails(
        source=settings.source,
        classes=tuple(raw.classes),
        preprocessing=preprocessing,
        mirror=source.mirror,
        storage=stored,
        counts={split: len(rows[split]) for split in SPLITS},
        task=raw.task,
        balance=settings.balance,
        labelled=raw.labelled,
        reopen=reopen,
    )
    return Dataset.seal(out, details=details, metrics=report)


def expected(settings: DataSettings) -> tuple[DatasetDetails, Json]:
    """What prepare() would make if every image were readable and unlike all others: no image is decoded or downloaded.

    Returns:
        The data set's details, as of a cached one, and the report of its manifest. Equal and broken images can only
        make its splits smaller.

    Raises:
        UnknownNameError, DataError: as prepare(), except for what images show when they are decoded.
    """
    source = source_named(settings.source, where="data.source")
    raw = source.read(settings.model_copy(update={"download": False}))
    labels = np.concatenate([samples.labels for samples in raw.splits.values()])
    problems = tuple(f"{name}: there is no such file" for name in raw.missing)
    check_broken(problems, len(labels), settings.broken)
    rows, report = _select(_Images(raw, labels, np.arange(len(labels)), problems, None), settings)
    details = DatasetDetails(
        source=settings.source,
        classes=tuple(raw.classes),
        preprocessing=settings.preprocessing,
        mirror=source.mirror,
        storage="cached",
        counts={split: len(rows[split]) for split in SPLITS},
        task=raw.task,
        balance=settings.balance,
        labelled=raw.labelled,
    )
    return details, report


def _decode(raw: RawData, preprocessing: Preprocessing, pixels: Pixels | None, progress: Progress | None) -> _Images:
    digests: list[bytes] = []
    problems: list[str] = []
    outside: list[str] = []
    lost: list[float] = []
    deep: list[int] = []
    splits = list(raw.splits.values())
    for position, decoded in enumerate(decode_all(splits, preprocessing, pixels=pixels is not None, progress=progress)):
        digests.append(decoded.content or b"")
        if decoded.content is None:
            problems.append(decoded.problem)
        elif pixels is not None and decoded.pixels is not None:
            pixels[position] = decoded.pixels
        deep += [position] if decoded.deep else []
        outside += [decoded.outside] if decoded.outside else []
        if decoded.size is not None and preprocessing.fit == "crop":
            lost.append(lost_by_crop(decoded.size, preprocessing.image_size))
    unique, contents = np.unique(np.array(digests, dtype="S16"), return_inverse=True)
    broken = np.array([not digest for digest in digests])
    labels = np.concatenate([samples.labels for samples in splits])
    typical = float(np.median(lost)) if lost else 0.0
    numbers = np.where(broken, -1, contents)
    return _Images(raw, labels, numbers, tuple(problems), pixels, typical, tuple(deep), tuple(outside))


def _select(images: _Images, settings: DataSettings) -> tuple[Rows, Json]:
    """The images of each split, and a report for the manifest."""
    rows, leaks = close_leaks(_split(images, settings), images.contents, settings.leaks, images.name)
    duplicates = {split: len(kept) - len(np.unique(images.contents[kept])) for split, kept in rows.items()}
    labelled = images.raw.labelled
    missing = quality.missing_classes(_counts(images, rows), labelled=labelled)
    if settings.limit is not None:
        rows["train"] = _limited(images, rows["train"], settings.limit, settings.seed)
    counts, sizes = _counts(images, rows), {split: len(kept) for split, kept in rows.items()}
    readable = images.contents >= 0
    groups = conflicting_labels(images.contents[readable], _numbered(images.labels[readable])) if labelled else []
    conflicts = _conflicts(images, [np.flatnonzero(readable)[group].tolist() for group in groups[:_CONFLICTS_NAMED]])
    report: Json = {
        "leaks": leaks.to_json(),
        "duplicates": duplicates,
        "conflicting_labels": len(groups),
        "conflicts": [[each.model_dump() for each in equal] for equal in conflicts],
        "broken": {"count": len(images.problems), "examples": list(images.problems[:BROKEN_NAMED])},
        "left_out": str(images.raw.left_out),
        "class_order": _order(images.raw, settings),
        "split_off": [split for split in SPLITS if split not in images.raw.splits],
        "warnings": [
            *images.raw.notes,
            *quality.broken(images.problems),
            *missing,
            *(warnings_of(images.raw.classes) if labelled else ()),
            *quality.conflicting(len(groups), conflicts),
            *quality.cropped(images.lost),
            *quality.rare_classes(counts["train"], settings),
            *quality.few_images(counts, sizes, settings, labelled=labelled),
        ],
        "classes": counts if labelled else {},
        **(_set_sizes(images.labels[rows["train"]]) if images.raw.task == "multilabel" else {}),
    }
    return rows, report


def _order(raw: RawData, settings: DataSettings) -> str | None:
    """What has decided the order of the classes; None where their source gives it."""
    if raw.ordered or source_named(settings.source).class_names is None:
        return None
    return settings.class_order if settings.classes is None else "given"


def _split(images: _Images, settings: DataSettings) -> Rows:
    """The source's own splits; missing ones are split off its training images."""
    rows: Rows = {split: images.readable(split) for split in images.raw.splits}
    missing: tuple[tuple[SplitName, float, int], ...] = (
        ("test", settings.test, _TEST),
        ("validation", settings.validation, _VALIDATION),
    )
    if not images.raw.labelled:
        _check_enough(images, rows["train"], sum(split not in rows for split, _, _ in missing))
    for split, share, stream in missing:
        if split not in rows:
            train = rows["train"]
            leave = sum(each not in rows for each in SPLITS)  # this split is one of them, in place of training
            chosen = _carved(images, train, share, (settings.seed % 2**64, stream), leave)
            rows[split], rows["train"] = train[chosen], train[~chosen]
    return {split: rows[split] for split in SPLITS}


def _check_enough(images: _Images, train: Labels, splits: int) -> None:
    """Raises DataError where images without labels are too few to split further splits off; classes: see carve()."""
    distinct = len(np.unique(images.contents[train]))
    if distinct <= splits:
        raise DataError(
            "too few distinct images to be split",
            found=counted(distinct, "image"),
            allowed=f"{splits + 1} or more: some to calibrate on, some for validation and some to measure on",
            hint="add images",
        )


def _carved(images: _Images, train: Labels, share: float, seed: Sequence[int], leave: int) -> Mask:
    (strata, names), contents = images.strata, images.contents[train]
    if images.raw.task == "multilabel":
        return carve_sets(strata[train], contents, share, seed)
    return carve(strata[train], contents, names, share, seed, leave=leave)


def _limited(images: _Images, train: Labels, limit: int, seed: int) -> Labels:
    """The training images that remain under data.limit, classes in proportion; with several labels, any of them."""
    labels, generator = images.strata[0][train], np.random.default_rng([seed % 2**64, _LIMIT])
    if images.raw.task == "multilabel":
        chosen = train[np.sort(generator.permutation(len(train))[:limit])]
        quality.missing_classes(_counts(images, {"train": chosen}))
        return chosen
    return train[draw(labels, proportional(np.bincount(labels), limit), generator)]


def _conflicts(images: _Images, groups: Sequence[Sequence[int]]) -> list[list[LabelledImage]]:
    """The images at these positions, of many equal ones the first."""
    return [
        [LabelledImage(file=images.name(position), label=images.label(position)) for position in group[:_EQUAL_NAMED]]
        for group in groups
    ]


def _numbered(labels: Labels) -> Labels:
    """Labels of which equal ones have equal numbers: (N,)."""
    if labels.ndim == 1:
        return labels
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)


def _set_sizes(labels: Labels) -> Json:
    """How many classes a training image has, for labels (N, C)."""
    sizes = labels.sum(1)
    return {"labels_per_image": round(float(sizes.mean()), 4), "without_labels": int((sizes == 0).sum())}


def _counts(images: _Images, rows: Rows) -> dict[SplitName, dict[str, int]]:
    """The images of each class, by split; without labels of all together."""
    return {split: _per_class(images, kept) for split, kept in rows.items()}


def _per_class(images: _Images, rows: Labels) -> dict[str, int]:
    labels, names = images.strata
    own = labels[rows]
    counts = own.sum(0) if own.ndim == 2 else np.bincount(own, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _store(images: _Images, rows: Labels, split: SplitName, out: Path) -> None:
    labels = images.labels[rows]
    if images.pixels is not None:
        storage.write_cached(out, split, images.pixels, rows, labels)
        return
    origin = images.origin(int(rows[0]))
    storage.write_streamed(out, split, origin, rows - images.starts[origin], labels)
