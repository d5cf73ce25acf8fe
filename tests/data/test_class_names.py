from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest

from edgekd.data.class_names import alike, check_known, spelled, warnings_of
from edgekd.errors import DataError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["cat", "dog"], []),
        (["Cat", "dog", "CAT", "cat "], [("Cat", "CAT", "cat ")]),
        (["big cat", "big\u00a0 cat", "bigcat"], [("big cat", "big\u00a0 cat")]),
        (["cat", "cat\u200b"], [("cat", "cat\u200b")]),
        ([COMPOSED, DECOMPOSED], [(COMPOSED, DECOMPOSED)]),
        (["straße", "STRASSE"], [("straße", "STRASSE")]),
        # Letters are classes of their own; white space around them is not.
        (["a", "A", "b"], []),
        (["a", "a "], [("a", "a ")]),
    ],
)
def test_names_that_differ_only_in_how_they_are_written(names: Sequence[str], groups: list[tuple[str, ...]]) -> None:
    assert alike(names) == groups


def test_what_cannot_be_seen_is_escaped() -> None:
    assert spelled(["cat", "CAT "]) == '"cat", "CAT "'
    assert spelled(["café", "cat\u200b"]) == '"café", "cat\\u200b"'
    assert spelled([COMPOSED, DECOMPOSED]) == '"caf\\u00e9", "cafe\\u0301"'


def test_warnings() -> None:
    assert warnings_of(["cat", "dog"]) == []
    assert warnings_of(["Cat", "cat ", "dog "]) == [
        'Classes whose names differ only in case, white space or Unicode form: "Cat", "cat ". They count as different '
        "classes: give them one name if they are one.",
        'White space is part of the name "dog ".',
    ]


def test_a_class_that_train_lacks_or_writes_in_another_way() -> None:
    check_known(["cat"], ["cat", "dog"], split="test", remedy="remove them")
    with pytest.raises(
        DataError, match="^in.csv: the test split has classes that train lacks\n  found: cow\n  next: .* or remove them"
    ):
        check_known(["cow"], ["cat", "dog"], split="test", where="in.csv", remedy="remove them")
    with pytest.raises(DataError, match='found: Cat\n  next: write it in one way: "cat", "Cat"$'):
        check_known(["Cat"], ["cat", "dog"], split="test", remedy="remove them")
