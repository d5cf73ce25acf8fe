"""The smallest set that meets a bound, by drops that are known beforehand."""

from __future__ import annotations

import pytest

from edgekd.quantization.mixed import fewest, with_blocks

RANKED = tuple("abcdefghij")


def _drop(causes: dict[str, float], tried: list[tuple[str, ...]]):
    def drop(keep: tuple[str, ...]) -> float:
        tried.append(keep)
        return sum(cost for name, cost in causes.items() if name not in keep)

    return drop


@pytest.mark.parametrize(
    ("causes", "allowed", "keep"),
    [
        ({"a": 0.2}, 0.01, ("a",)),
        ({"a": 0.2, "b": 0.1, "c": 0.004}, 0.01, ("a", "b")),
        ({"a": 0.2, "f": 0.1}, 0.01, ("a", "f")),  # the ranking is not quite right
        ({"d": 0.2}, 0.0, ("d",)),
        ({"a": 0.2, "b": 0.1, "c": 0.1, "d": 0.1, "e": 0.1}, 0.15, ("a", "b", "c", "d")),
    ],
)
def test_only_what_is_needed_is_kept(causes, allowed, keep):
    tried: list[tuple[str, ...]] = []
    found = fewest(RANKED, _drop(causes, tried), allowed, 8)
    assert (found.keep, found.met) == (keep, True)
    assert found.drop == pytest.approx(sum(cost for name, cost in causes.items() if name not in keep))
    assert found.tried == len(tried) == len(set(tried)) <= 16


def test_a_bound_that_no_set_meets_gives_the_nearest():
    tried: list[tuple[str, ...]] = []
    found = fewest(RANKED, _drop({"a": 0.3, "j": 0.2}, tried), 0.01, 5)
    assert (found.keep, found.drop, found.met) == (("a",), 0.2, False)
    assert max(map(len, tried)) == 5
    none = fewest((), lambda _: 1.0, 0.1, 5)
    assert (none.keep, none.met, none.tried) == ((), False, 0)


def test_blocks_are_the_nearest_modules_that_hold_more():
    names = ("stem", "f.1.a.0", "f.1.a.1", "f.1.b.0", "f.1.add", "f.2.a.0", "f.2.b.0", "head.0", "head.1")
    assert with_blocks(["f.1.b.0"], names, 4) == names[1:5]
    assert with_blocks(["f.1.b.0"], names, 3) == ("f.1.b.0",)
    assert with_blocks(["f.1.a.0", "stem"], names, 4) == ("stem", "f.1.a.0", "f.1.a.1")
    assert with_blocks(["head.1", "f.2.a.0"], names, 4) == names[5:]
