"""Names of classes in order, by text and by the numbers in them."""

from __future__ import annotations

import pytest
from timm.utils.misc import natural_key

from edgekd.data.class_order import arranged, depends_on_order, in_order, shown
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings


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


def test_natural_order_is_that_of_timm() -> None:
    names = ["Würfel", "arrow 10", "Kreis", "arrow 2"]
    assert in_order(names, "natural") == ("arrow 2", "arrow 10", "Kreis", "Würfel")
    assert in_order(names, "natural") == tuple(sorted(names, key=natural_key))


def test_an_order_that_is_given_decides_and_must_be_of_the_same_classes() -> None:
    settings = DataSettings.model_validate({"source": "image-folder", "classes": ["b", "c", "a"]})
    assert arranged(["a", "b", "c"], settings) == ("b", "c", "a")
    with pytest.raises(DataError, match=r"not the classes of the images\n  found: only in one of the two: c, d"):
        arranged(["a", "b", "d"], settings)
