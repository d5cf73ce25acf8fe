"""What a data set's splits lack for training and measuring on them: refusals and warnings, one sentence or two each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.data.findings import LabelledImage
from edgekd.data.sources import SplitName
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.images import printable
from edgekd.runtime.statistics import wilson
from edgekd.wording import counted

# By class; of images without labels there is one entry, with any name.
Counts = Mapping[str, int]
_NAMED = 10
# Files are longer; of equal ones two are enough to find the others.
_FILES = 5
_EQUAL = 3
# Of the most frequent class's images.
_RARE = 0.1
# A third, less the rounding of odd sizes.
_MUCH_LOST = 0.33
# Of fewer images the 95 % interval of an accuracy is up to 20 points wide.
_FEW_MEASURED = 100
# Of a class.
_FEW_TRAINED = 10
_FEW_CALIBRATED = 32


def missing_classes(counts: Mapping[SplitName, Counts], *, labelled: bool = True) -> list[str]:
    """Warnings about classes that a split lacks, which is measured on the others.

    Raises:
        DataError: the training images lack a class, or a split has no images at all.
    """
    found = []
    for split, own in counts.items():
        empty = [name for name, count in own.items() if count == 0]
        if empty and (split == "train" or len(empty) == len(own)):
            which = f" of {len(empty)} of {counted(len(own), 'class')}" if labelled else ""
            raise DataError(
                f"the {split} split has no image{which}",
                found=f"none of {', '.join(empty[:_NAMED])}" if labelled else None,
                hint=f"add images{', or remove the class' if labelled else ''}; leaked and broken images were dropped "
                "before",
            )
        if empty:
            found.append(
                f"The {split} split has no image of {_listed(empty)}: what is measured on it says nothing about "
                f"{'this class' if len(empty) == 1 else f'these {len(empty)} of {len(own)} classes'}."
            )
    return found


def conflicting(count: int, conflicts: Sequence[Sequence[LabelledImage]]) -> list[str]:
    """A warning about images that occur with more than one label.

    Args:
        count: how many.
        conflicts: the first of them, each as equal images.
    """
    if not count:
        return []
    what = "image occurs" if count == 1 else "images occur"
    named = "; ".join(", ".join(f"{each.file} ({each.label})" for each in some[:_EQUAL]) for some in conflicts[:_FILES])
    more = f"; and {count - _FILES:,} more" if count > _FILES else ""
    return [f"{count:,} {what} with more than one label. Equal are {named}{more}. Remove the wrong ones."]


def broken(problems: Sequence[str]) -> list[str]:
    """A warning about images that are left out because they cannot be read.

    Args:
        problems: one line per image.
    """
    if not problems:
        return []
    are = "is" if len(problems) == 1 else "are"
    more = f"; and {len(problems) - _FILES:,} more" if len(problems) > _FILES else ""
    named = "; ".join(printable(problem) for problem in problems[:_FILES])
    return [f"{counted(len(problems), 'image')} cannot be read and {are} left out: {named}{more}."]


def cropped(lost: float) -> list[str]:
    """A warning where the crop discards a third or more of a typical image, as of one of 3:2."""
    if lost < _MUCH_LOST:
        return []
    return [
        f"The crop discards {lost:.0%} of a typical image, because its ratio of height to width is not that of "
        "data.image_size. Set data.image_size: [height, width], or data.fit: pad or squash to keep all of it."
    ]


def rare_classes(train: Counts, settings: DataSettings) -> list[str]:
    """A warning where a class has less than a tenth of the most frequent one's training images."""
    rare = _rare(train)
    if not rare:
        return []
    most = max(train, key=train.__getitem__)
    named = _listed([f"{name} ({train[name]:,})" for name in rare])
    single = settings.task == "single-label"
    remedy = "; data.balance: sqrt shows them more often" if single and settings.balance == "none" else ""
    return [
        f"{len(rare)} of {len(train)} classes {_have(len(rare))} less than a tenth of the training images of {most} "
        f"({train[most]:,}): {named}. Look at the {'accuracies' if single else 'average precisions'} of the "
        f"classes, not only at their mean{remedy}."
    ]


def few_images(
    counts: Mapping[SplitName, Counts], sizes: Mapping[SplitName, int], settings: DataSettings, *, labelled: bool = True
) -> list[str]:
    """Warnings about splits that are too small to measure, to train or to calibrate on.

    Args:
        counts: the images of each class, by split.
        sizes: all images, by split.
        settings: of the data.
        labelled: whether the images have labels.
    """
    few = _few_measured(counts, sizes, multilabel=settings.task == "multilabel", labelled=labelled)
    if labelled:
        return few + _few_trained(counts["train"])
    if sizes["train"] < _FEW_CALIBRATED:
        few.append(
            f"Only {counted(sizes['train'], 'image')} to calibrate on: fewer than {_FEW_CALIBRATED} tell little of the "
            "ranges that int8 has to cover. Add images."
        )
    return few


def _few_measured(
    counts: Mapping[SplitName, Counts], sizes: Mapping[SplitName, int], *, multilabel: bool, labelled: bool
) -> list[str]:
    splits: tuple[SplitName, ...] = ("validation", "test")
    small = [split for split in splits if sizes[split] < _FEW_MEASURED]
    if not small:
        return []
    named = [f"{counted(sizes[split], f'{split} image')}{_each(counts[split], labelled)}" for split in small]
    fewest = min(sizes[split] for split in small)
    low, high = wilson(fewest // 2, fewest)
    measure = "accuracy" if labelled else "agreement"
    width = f"the 95 % interval of an {measure} on {fewest} is up to {100 * (high - low):.0f} points wide"
    uncertain = "average precisions on so few are very uncertain" if multilabel else width
    return [f"Only {' and '.join(named)}: {uncertain}, so that models can hardly be told apart. Add images."]


def _few_trained(train: Counts) -> list[str]:
    rare = _rare(train)
    few = [name for name, count in train.items() if count < _FEW_TRAINED and name not in rare]
    if not few:
        return []
    named = _listed([f"{name} ({train[name]})" for name in few])
    return [
        f"{len(few)} of {counted(len(train), 'class')} {_have(len(few))} fewer than {_FEW_TRAINED} training images: "
        f"{named}. A network overfits so few: add images."
    ]


def _rare(train: Counts) -> list[str]:
    most = max(train.values())
    return sorted((name for name, count in train.items() if count < _RARE * most), key=train.__getitem__)


def _each(counts: Counts, labelled: bool) -> str:
    """How many images a class has, for a message."""
    if not labelled:
        return ""
    low, high = min(counts.values()), max(counts.values())
    return f" ({low} per class)" if low == high else f" ({low} to {high} per class)"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
