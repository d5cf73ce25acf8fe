from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgekd.runtime.statistics import packed
from edgekd.stages.scores import Row, Rows

MISTAKE = {"row": 3, "name": "a.png", "label": "cat", "answer": "dog", "probability": 0.9}
ROW = {
    "model": "student-fp32",
    "role": "student",
    "variant": "fp32",
    "engine": "onnxruntime 1.2",
    "accuracy": 0.9,
    "interval": (0.6, 0.98),
    "samples": 10,
    "correct": packed(np.arange(10) < 9),
}


def test_a_row_has_one_score_whichever_it_is() -> None:
    assert Row.model_validate(ROW).score == 0.9
    others = {key: value for key, value in ROW.items() if key != "accuracy"}
    assert Row.model_validate({**others, "agreement": 0.8}).score == 0.8
    assert Row.model_validate({**others, "mAP": 0.7}).score == 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mAP": 0.5}, "an accuracy, an agreement or a mAP"),
        ({"accuracy": None}, "an accuracy, an agreement or a mAP"),
        ({"samples": 30}, "16 bits for 30 images"),
        ({"correct": "\0"}, "base64"),
        ({"interval": [0.6, 1.2]}, "less than or equal to 1"),
        ({"worst": [MISTAKE]}, "image"),
        ({"worst": [{**MISTAKE, "image": "../../secret.png"}]}, "should match pattern"),
        ({"worst": [{**MISTAKE, "image": "images/0.svg"}]}, "should match pattern"),
        ({"heads": {"colour": {"accuracy": 0.5}}}, "heads.colour.interval"),
    ],
)
def test_what_is_no_row_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Row.model_validate({**ROW, **changes})


def test_an_evaluation_has_a_row_and_is_of_the_test_split() -> None:
    shown = {**ROW, "worst": [{**MISTAKE, "image": "images/0.png"}]}
    assert Rows.model_validate({"split": "test", "rows": [shown]}).rows[0].worst[0].image == "images/0.png"
    for wrong in ({"split": "test", "rows": []}, {"split": "train", "rows": [ROW]}):
        with pytest.raises(ValidationError):
            Rows.model_validate(wrong)
