"""Names of classes in order, by text and by the numbers in them."""

from __future__ import annotations

import pytest

from edgekd.data.class_order import depends_on_order, in_order, shown


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10", "100"],
        ["a", "a1", "a2", "a10", "b"],
        ["img 2 of 9", "img 2 of 10", "img 10 of 9"],
        ["01", "1", "2"],
        ["7", "a"],
        ["9" * 4999, "1" + "0" * 4999],  # int() takes no more than 4,300 digits
        ["²", "Ä"],
    ],
)
def test_natural_order_compares_numbers_as_numbers(names: list[str]) -> None:
    assert in_order(reversed(names), "natural") == tuple(names) and in_order(names, "name") == tuple(sorted(names))


def test_where_the_order_matters() -> None:
    assert depends_on_order(["1", "2", "10"]) and not depends_on_order(["0", "1", "9"])
    assert not depends_on_order(["cat", "dog"]) and not depends_on_order(())
    assert shown(["a", "b"]) == "a, b" and shown(list("abcdef")) == "a, b, c, d, e, …"
