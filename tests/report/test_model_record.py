from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import ArtifactError
from edgekd.report.record import parse
from edgekd.stages.scores import Calibration, ClassPrecision, LabelCalibration, Mistake, Score, WrongLabels

Json = dict[str, Any]


def test_answers_are_read_as_those_of_their_task(whole: Json, sets: Json) -> None:
    single, several = parse(whole).models[0], parse(sets).models[0]
    assert isinstance(single.calibration, Calibration) and isinstance(several.calibration, LabelCalibration)
    assert {type(each) for each in single.worst} == {Mistake} and {type(each) for each in several.worst} == {
        WrongLabels
    }
    assert {type(each) for each in single.per_class.values()} == {Score}
    assert {type(each) for each in several.per_class.values()} == {ClassPrecision}
    assert (single.score, several.score) == (0.981, 0.981)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mAP": 0.5}, "an accuracy, an agreement or a mAP"),
        ({"accuracy": None}, "an accuracy, an agreement or a mAP"),
        ({"accuracy": 1.2}, "accuracy: Input should be less than or equal to 1"),
        ({"worst": [{"row": 0, "name": "a"}]}, "worst.0"),
        ({"unknown": 1}, "unknown: Extra inputs"),
    ],
)
def test_what_is_no_model_is_refused(record: Json, changes: Json, message: str) -> None:
    record["models"][0].update(changes)
    with pytest.raises(ArtifactError, match=message):
        parse(record)
