from __future__ import annotations

import pytest

from edgekd.wording import counted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1234, "test image", "1,234 test images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
        (2, "query", "2 queries"),
        (2, "day", "2 days"),
    ],
)
def test_one_and_several(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
