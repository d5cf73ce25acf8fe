from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.data.findings import DatasetMetrics


def test_what_was_not_looked_for_was_not_found() -> None:
    found = DatasetMetrics()
    assert found.leaks.pairs == () and found.broken.count == 0 and found.warnings == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"leaks": {"policy": "keep", "pairs": [{"splits": ["train"], "count": 1, "examples": []}], "dropped": {}}},
        {"broken": {"count": -1, "examples": []}},
        {"broken": 3},
        {"classes": {"cat": {"train": 0.5}}},
        {"class_order": "size"},
        {"split_off": "test"},
    ],
)
def test_findings_that_no_preparation_writes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DatasetMetrics.model_validate(wrong)
