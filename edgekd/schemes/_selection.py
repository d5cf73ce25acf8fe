"""Selection of training images when only some have labels: drawn, checked, filtered by the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgekd.data.composed import Chosen, Joined
from edgekd.data.dataset import Dataset, Split, open_split
from edgekd.data.leaks import contents, measured_contents
from edgekd.data.loader import Loader
from edgekd.data.sources import Labels
from edgekd.data.splits import draw, proportional
from edgekd.data.unlabelled import Pool
from edgekd.distillation.distill import check_classes
from edgekd.errors import DataError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.store.artifacts import Artifact, Details, Json
from edgekd.store.records import Count, Metrics
from edgekd.training.host import best_device

VERSION = 1
_LIMIT = 2  # added to the seed as data.limit does, so that `labels: 200` are the images that `limit: 200` would keep
_BATCH = 256
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Criteria:
    """How images are selected.

    Attributes:
        labels: how many of the training images have one; None: all.
        confidence: the teacher's top-1 probability, below which an unlabelled image is left out.
        balance: select equally many unlabelled images of each class that the teacher predicts.
        seed: draws the labelled images and the duplicates.
    """

    labels: int | None
    confidence: float
    balance: bool
    seed: int

    @property
    def need_teacher(self) -> bool:
        """Whether the teacher's predictions are used."""
        return self.confidence > 0.0 or self.balance


class SelectionDetails(Details):
    """How images were selected; see Criteria."""

    labels: int | None
    confidence: float
    balance: bool


class SelectionMetrics(Metrics):
    """How many images were taken, and how many were left out for what reason; see warnings_of()."""

    labelled: Count
    pool: Count
    unlabelled: Count
    different: Count
    held_out: Count
    known: Count
    unsure: Count = 0
    classes: dict[str, Count] = {}


class Selection(Artifact[SelectionDetails]):
    """`labelled.npy`: positions in the training split. `unlabelled.npy`: positions in the pool, some repeated."""

    kind = "selection"
    measured = SelectionMetrics

    def labelled(self, data: Dataset) -> Split:
        """The training images that keep their label."""
        return Chosen(open_split(data, "train"), np.load(self.path / "labelled.npy"))

    def unlabelled(self, data: Dataset, pool: Artifact | None) -> Split:
        """The selected unlabelled images, some repeated; see select() for `pool`."""
        return Chosen(open_pool(data, pool), np.load(self.path / "unlabelled.npy"), labelled=False)

    def mixed(self, data: Dataset, pool: Artifact | None, share: float) -> Split:
        """Every unlabelled image once, and the labelled ones repeated until they are a share of the whole.

        Args:
            data, pool: see select().
            share: of labelled images, below 1; they are never fewer than without repetition.
        """
        some, many = self.labelled(data), self.unlabelled(data, pool)
        wanted = round(share / (1.0 - share) * len(many))
        return Joined([many, repeated(some, max(wanted, len(some)))]) if len(some) else many


@dataclass(frozen=True)
class Predictions:
    """A teacher's predictions for N images.

    Attributes:
        confidence: (N,) the largest probability.
        predicted: (N,) the index of its class.
    """

    confidence: Floats
    predicted: Labels


def select(
    data: Dataset,
    pool: Artifact | None,
    teacher: Checkpoint | None,
    criteria: Criteria,
    out: Path,
) -> Selection:
    """Draw the labelled images, and choose among the others.

    Left out are images that are also in the validation or test split or among the labelled ones, and those for which
    the teacher's confidence is below the threshold.

    Args:
        data: whose training split is drawn from.
        pool: a folder's images, or another data set's training split; None: the training images that keep no label.
        teacher: None if the criteria do not need one.
        criteria: how images are selected.
        out: an empty folder, which becomes the artifact.

    Raises:
        DataError: too few or too many labels, or no unlabelled image is left.
        ModelError: the teacher has other classes.
    """
    train = open_split(data, "train")
    chosen = draw_labelled(train.labels, criteria.labels, len(data.classes), criteria.seed)
    images = open_pool(data, pool)
    rows = np.flatnonzero(~chosen) if pool is None else np.arange(len(images))
    found: Json = {"labelled": int(chosen.sum()), "pool": len(rows)}
    rows = _unknown(images, rows, data, Chosen(train, np.flatnonzero(chosen)), found)
    if teacher is not None and len(rows):
        check_classes(teacher, data)
        predictions = predict(teacher, Chosen(images, rows, labelled=False), data)
        kept = confident(predictions, criteria)
        found["unsure"] = len(rows) - int((predictions.confidence >= criteria.confidence).sum())
        per_class = np.bincount(predictions.predicted[kept], minlength=len(data.classes)).tolist()
        found["classes"] = dict(zip(data.classes, per_class, strict=True))
        rows = rows[kept]
    found |= {"unlabelled": len(rows), "different": len(np.unique(rows))}
    if not len(rows):
        raise DataError(
            "no unlabelled image is left to learn from",
            found=", ".join(f"{name} {value}" for name, value in found.items() if isinstance(value, int)),
            hint="lower confidence, name fewer labels, or bring other images",
        )
    np.save(out / "labelled.npy", np.flatnonzero(chosen))
    np.save(out / "unlabelled.npy", rows)
    details = SelectionDetails(labels=criteria.labels, confidence=criteria.confidence, balance=criteria.balance)
    return Selection.seal(out, details=details, metrics=found)


def check_labels(wanted: int | None, classes: int, available: int) -> None:
    """Check how many training images keep their label.

    Args:
        wanted: how many; None: all, 0: none.
        classes: how many classes there are.
        available: how many training images there are.

    Raises:
        DataError: fewer than classes, or more than there are.
    """
    if wanted and not classes <= wanted <= available:
        raise DataError(
            "distill.scheme.labels does not fit the training images",
            found=wanted,
            allowed=f"0, or {classes} (one per class) to {available}",
        )


def open_pool(data: Dataset, pool: Artifact | None) -> Split:
    """The unlabelled images; see select() for `pool`."""
    if isinstance(pool, Pool):
        return pool.open()
    return open_split(pool if isinstance(pool, Dataset) else data, "train")


def draw_labelled(labels: Labels, wanted: int | None, classes: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the training images that keep their label, classes in proportion.

    Args:
        labels: (N,) class indices.
        wanted: how many; None: all, 0: none.
        classes: how many classes there are.
        seed: of the draw.

    Returns:
        (N,), True for the images that keep their label.

    Raises:
        DataError: fewer than one per class (0 is none at all), or more than there are.
    """
    if wanted is None or wanted == 0:
        return np.full(len(labels), wanted is None)
    check_labels(wanted, classes, len(labels))
    quotas = proportional(np.bincount(labels, minlength=classes), wanted)
    return draw(labels, quotas, np.random.default_rng([seed % 2**64, _LIMIT]))


@torch.no_grad()
def predict(teacher: Checkpoint, split: Split, data: Dataset) -> Predictions:
    """The teacher's predictions for images as they are, without augmentation, in single precision."""
    device = best_device()
    network = checkpoints.load(teacher).eval()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    tops: list[torch.Tensor] = []
    classes: list[torch.Tensor] = []
    for batch in Loader(split, data.details.preprocessing, batch_size=_BATCH, device=device).epoch(0):
        top, predicted = network(batch.images).float().softmax(1).max(1)
        tops.append(top.cpu())
        classes.append(predicted.cpu())
    return Predictions(torch.cat(tops).numpy(), torch.cat(classes).numpy())


def confident(predictions: Predictions, criteria: Criteria) -> Labels:
    """Positions of the images that stay, in order, those that are duplicated more than once.

    Source: Xie et al., Self-training with Noisy Student (2020), section 3.1: images whose confidence is below a
    threshold are left out; of each class as many are kept, the most confident, and rare classes are filled up with
    duplicates. There that number is set by hand, here it is the mean over the classes that occur.
    """
    kept = np.flatnonzero(predictions.confidence >= criteria.confidence)
    if not criteria.balance or not len(kept):
        return kept
    predicted, tops = predictions.predicted[kept], predictions.confidence[kept]
    present = np.unique(predicted)
    each = max(1, round(len(kept) / len(present)))
    generator = np.random.default_rng([criteria.seed % 2**64, _LIMIT + 1])
    parts: list[Labels] = []
    for label in present:
        own = np.flatnonzero(predicted == label)
        best = own[np.argsort(-tops[own], kind="stable")[:each]]
        whole, rest = divmod(each, len(best))
        parts += [np.repeat(best, whole), generator.choice(best, rest, replace=False)]
    return np.sort(kept[np.concatenate(parts)])


def repeated(split: Split, count: int) -> Split:
    """The split's images, repeated in order up to a number of images."""
    return Chosen(split, np.arange(count) % len(split))


def warnings_of(selection: Selection, classes: Sequence[str]) -> list[str]:
    """How many images were left out and why, and the classes that the teacher does not predict."""
    found = selection.metrics
    reasons = {
        "equal to a validation or test image": found["held_out"],
        "equal to a labelled image": found["known"],
        "teacher confidence below the threshold": found.get("unsure", 0),
    }
    lines = []
    if any(reasons.values()):
        counts = "; ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
        lines.append(f"Of {found['pool']} unlabelled images some were left out: {counts}.")
    seen = found.get("classes", {})
    if absent := [name for name in classes if seen and not seen[name]]:
        shown = ", ".join(absent[:10])
        lines.append(
            f"The teacher predicts {len(absent)} of {len(classes)} classes for none of the unlabelled images: {shown}."
        )
    return lines


def _unknown(images: Split, rows: Labels, data: Dataset, labelled: Split, found: Json) -> Labels:
    """The images that are neither in an evaluation split nor labelled already; counts the others in `found`."""
    held_out = measured_contents(data)
    known = set(contents(labelled))
    digests = contents(images, rows)
    measured = np.array([digest in held_out for digest in digests], dtype=np.bool_)
    labels_known = np.array([digest in known for digest in digests], dtype=np.bool_) & ~measured
    found |= {"held_out": int(measured.sum()), "known": int(labels_known.sum())}
    return rows[~measured & ~labels_known]
