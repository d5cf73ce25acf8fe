"""What a report's record keeps of one exported file. Units as in edgekd.report.record."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from edgekd.report.base import Count, Frozen, Share, Span

Signed = Annotated[float, Field(ge=-1.0, le=1.0)]


class Score(Frozen):
    """An accuracy on `samples` images, with its 95 % interval."""

    accuracy: Share
    interval: tuple[Share, Share]
    samples: Count


class Majority(Frozen):
    """The most frequent label, and its share of the images: the accuracy of always answering it."""

    label: str
    share: Share


class Confusion(Frozen):
    """How often images of the class `label` were taken for `answer`."""

    label: str
    answer: str
    count: Count


class Bin(Frozen):
    """The test images with a confidence in one of the bins of equal width: how many, and the means over them."""

    count: Count
    confidence: Share | None
    accuracy: Share | None


class Calibration(Frozen):
    """With one label per image. See edgekd.runtime.statistics.Calibration; `nll` is in nats per image."""

    ece: Share
    nll: Span
    confidence: Share
    accuracy: Share
    samples: Count
    bins: tuple[Bin, ...]


class Mistake(Frozen):
    """A wrong answer to one test image.

    Attributes:
        row: the image's index in the test split.
        name: the image's name in its source, such as a path below data.root.
        probability: of the answer.
    """

    row: Count
    name: str
    label: str
    answer: str
    probability: Share


class ClassPrecision(Frozen):
    """See edgekd.runtime.multilabel.ClassPrecision."""

    average_precision: Share
    interval: tuple[Share, Share]
    samples: Count
    probability: Share | None
    ece: Share | None


class LabelBin(Frozen):
    """The labels with a probability in one of the bins of equal width: how many, and the means over them."""

    count: Count
    probability: Share | None
    frequency: Share | None


class LabelCalibration(Frozen):
    """See edgekd.runtime.label_calibration.LabelCalibration; `nll` is in nats per label."""

    ece: Share
    brier: Share
    nll: Span
    probability: Share
    frequency: Share
    difference: Signed
    interval: tuple[Signed, Signed]
    labels: Count
    bins: tuple[LabelBin, ...]


class WrongLabel(Frozen):
    """A label that an image does not have and was `given`, or that it has and was not; `probability`: the model's."""

    label: str
    given: bool
    probability: Share


class WrongLabels(Frozen):
    """The wrong labels of one test image, the most confident first; `row` and `name` as of a Mistake."""

    row: Count
    name: str
    wrong: tuple[WrongLabel, ...]


class ModelEntry(Frozen):
    """One exported file and its accuracy on the test split, with a 95 % interval over `samples` images.

    Attributes:
        agreement: for images without labels: how often it answers as the float student, which stands for the accuracy.
        logit_error: the error of its logits then, relative to the float student's.
        ships: whether it is in the bundle.
        seconds: how long the stage that made its checkpoint took.
        heads: the scores of additional heads on their own test splits, by name.
        problems: why its answers cannot be believed.
        majority: the most frequent class and its share of the test images.
        balanced_accuracy: the mean of the accuracies of the classes that have test images.
        per_class: the accuracy of each of them; with several labels per image the average precisions.
        confused: the most frequent confusions, the most frequent first.
        calibration: how well the probabilities of its answers agree with its accuracy; with several labels per image
            those of the labels with how often images have them.
        worst: its wrong answers with the highest probabilities, the highest first, or the images with such labels.
        mAP, chance, micro_f1, macro_f1, replicates: with several labels per image: see
            edgekd.runtime.multilabel.Summary.
        correct: for each test image whether the answer was right, see edgekd.runtime.statistics.packed.
    """

    id: str
    role: str
    title: str
    variant: str
    precision: str
    ships: bool
    architecture: str
    accuracy: Share | None = None
    agreement: Share | None = None
    logit_error: Span | None = None
    interval: tuple[Share, Share]
    samples: Count
    size_bytes: Count
    parameters: Count
    macs: Count | None
    seconds: Span | None
    heads: dict[str, Score] = {}
    problems: tuple[str, ...] = ()
    majority: Majority | None = None
    correct: str = ""
    balanced_accuracy: Share | None = None
    per_class: dict[str, Score | ClassPrecision] = {}
    confused: tuple[Confusion, ...] = ()
    calibration: Calibration | LabelCalibration | None = None
    worst: tuple[Mistake | WrongLabels, ...] = ()
    mAP: Share | None = None
    chance: Share | None = None
    micro_f1: Share | None = None
    macro_f1: Share | None = None
    replicates: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _one_score(self) -> ModelEntry:
        if len(self._scores) != 1:
            raise ValueError("a model has an accuracy, an agreement or a mAP")
        return self

    @property
    def _scores(self) -> list[float]:
        return [score for score in (self.accuracy, self.agreement, self.mAP) if score is not None]

    @property
    def score(self) -> float:
        """The accuracy, without labels the agreement, with several labels per image the mAP."""
        return self._scores[0]
