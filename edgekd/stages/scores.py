"""What an evaluation records of one exported file; shares are from 0 to 1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from edgekd.runtime.statistics import unpacked
from edgekd.store.records import Count, Frozen, Share, Span

ImageFile = Annotated[str, Field(pattern=r"^images/\d+\.(png|jpg)$")]
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


class Scores(Frozen):
    """One exported file's scores on the test split, with a 95 % interval over `samples` images.

    Attributes:
        agreement: for images without labels: how often it answers as the float student, which stands for the accuracy.
        logit_error: the error of its logits then, relative to the float student's.
        problems: why its answers cannot be believed.
        majority: the most frequent class and its share of the test images.
        balanced_accuracy: the mean of the accuracies of the classes that have test images.
        per_class: the accuracy of each of them; with several labels per image the average precisions.
        confused: the most frequent confusions, the most frequent first.
        calibration: how well the probabilities of its answers agree with its accuracy; with several labels per image
            those of the labels with how often images have them.
        mAP, chance, micro_f1, macro_f1, replicates, unmeasured: with several labels per image: see
            edgekd.runtime.multilabel.Summary.
        correct: for each test image whether the answer was right, see edgekd.runtime.statistics.packed.
    """

    accuracy: Share | None = None
    agreement: Share | None = None
    logit_error: Span | None = None
    interval: tuple[Share, Share]
    samples: Count
    problems: tuple[str, ...] = ()
    majority: Majority | None = None
    correct: str = ""
    balanced_accuracy: Share | None = None
    per_class: dict[str, Score | ClassPrecision] = {}
    confused: tuple[Confusion, ...] = ()
    calibration: Calibration | LabelCalibration | None = None
    mAP: Share | None = None
    chance: Share | None = None
    micro_f1: Share | None = None
    macro_f1: Share | None = None
    replicates: tuple[Share, ...] = ()
    unmeasured: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_score(self) -> Self:
        if len(self._scores) != 1:
            raise ValueError("a model has an accuracy, an agreement or a mAP")
        return self

    @model_validator(mode="after")
    def _one_bit_per_image(self) -> Self:
        if self.correct:
            unpacked(self.correct, self.samples)
        return self

    @property
    def _scores(self) -> list[float]:
        return [score for score in (self.accuracy, self.agreement, self.mAP) if score is not None]

    @property
    def score(self) -> float:
        """The accuracy, without labels the agreement, with several labels per image the mAP."""
        return self._scores[0]


class ShownMistake(Mistake):
    """With a file of the image, beside evaluation.json."""

    image: ImageFile


class ShownWrongLabels(WrongLabels):
    """With a file of the image, beside evaluation.json."""

    image: ImageFile


class HeadRow(Scores):
    """The scores of an additional head; `thresholds`: with several labels per image, by class."""

    engine: str
    worst: tuple[Mistake | WrongLabels, ...] = ()
    thresholds: tuple[Share, ...] = ()


class Row(HeadRow):
    """One model's scores; `model`, `role` and `variant` are those of edgekd.export.model_id.ModelId.to_json()."""

    model: str
    role: str
    variant: str
    heads: dict[str, HeadRow] = {}
    worst: tuple[ShownMistake | ShownWrongLabels, ...] = ()


class Rows(Frozen):
    """What evaluation.json holds."""

    split: Literal["test"]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
