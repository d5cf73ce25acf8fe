from __future__ import annotations

import pytest

from edgekd.runtime import fields


def test_values_of_the_right_type_are_returned() -> None:
    assert fields.field({"a": 1}, "a") == 1
    assert fields.text("a", "x") == "a" and fields.texts(["a", "b"], "x") == ("a", "b")
    assert fields.number(1, "x", 0, 1) == 1.0 and fields.whole(3, "x", 3, 3) == 3
    assert fields.items([1], "x") == [1] and fields.mapping({"a": 1}, "x") == {"a": 1}


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: fields.field({}, "file", "variants.fp32."), r"^variants\.fp32\.file is missing$"),
        (lambda: fields.text(3, "name"), "^name is 3, not a text$"),
        (lambda: fields.text(["y" * 99], "name"), "^name is .{60}…, not a text$"),
        (lambda: fields.texts(["a", 3], "classes"), r"^classes\[1\] is 3, not a text$"),
        (lambda: fields.texts(["a", "b", "a"], "classes"), "^classes has 'a' twice$"),
        (lambda: fields.texts("ab", "classes"), "^classes is 'ab', not a list$"),
        (lambda: fields.number(True, "x", 0, 1), "^x is True, not a number from 0 to 1$"),
        (lambda: fields.number("0.5", "x", 0, 1), "^x is '0.5', not a number"),
        (lambda: fields.number(1.5, "x", 0, 1), "^x is 1.5, not a number from 0 to 1$"),
        (lambda: fields.number(float("nan"), "x", 0, 1), "^x is nan, not a number"),
        (lambda: fields.whole(2.0, "x", 0, 9), "^x is 2.0, not a whole number from 0 to 9$"),
        (lambda: fields.whole(False, "x", 0, 9), "^x is False, not a whole number"),
        (lambda: fields.items({}, "x"), r"^x is \{\}, not a list$"),
        (lambda: fields.mapping([], "x"), r"^x is \[\], not an object$"),
    ],
)
def test_others_are_refused_with_their_place(read, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read()
