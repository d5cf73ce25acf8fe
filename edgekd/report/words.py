"""What the report calls the share of right answers: an accuracy, or without labels an agreement."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.report.record import Record


@dataclass(frozen=True)
class Words:
    """How a score is called.

    Attributes:
        title: as a heading.
        what: what it is, as the beginning of a sentence about the exported files.
        better: of a model with a higher score.
    """

    title: str
    what: str
    better: str


ACCURACY = Words("Accuracy", "Accuracy", "more accurate")
AGREEMENT = Words("Agreement with fp32", "Agreement with the student in fp32, no labels given,", "closer to fp32")


MEAN_PRECISION = Words("mAP", "Mean average precision (mAP)", "more precise")
_WORDS = {"accuracy": ACCURACY, "agreement": AGREEMENT, "mAP": MEAN_PRECISION}


def words_of(record: Record) -> Words:
    return _WORDS[record.data.measure]
