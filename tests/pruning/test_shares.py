"""What parts lose grows with the strength, by each of the rules, and to the multiple."""

from __future__ import annotations

import pytest

from edgekd.pruning.sensitivity import Curve
from edgekd.pruning.shares import BySensitivity, Global, Uniform
from edgekd.pruning.widths import Part

# 16 and 32 channels, of labels 0 to 15 and 16 to 47.
PARTS = (
    Part(frozenset(range(16)), {"a.weight": 16}, 16),
    Part(frozenset(range(16, 48)), {"b.weight": 32}, 32),
)
# The first part matters: a hundred times the error at every share.
CURVES = (
    Curve(("a.weight",), 16, (0.25, 0.5, 0.75), (0.1, 0.4, 0.9), None),
    Curve(("b.weight",), 32, (0.25, 0.5, 0.75), (0.001, 0.004, 0.009), None),
)


@pytest.mark.parametrize(
    ("strength", "units"), [(0.0, [16, 32]), (0.25, [12, 24]), (0.5, [8, 16]), (0.99, [4, 4]), (1.0, [4, 4])]
)
def test_uniform_takes_the_same_fraction_of_each(strength, units):
    assert Uniform(PARTS, 4).units(strength) == units


def test_global_takes_the_least_important_wherever_they_are():
    # All of the second part's first half are less important than anything else.
    scores = {channel: 0.1 if 16 <= channel < 32 else 1.0 + channel / 100 for channel in range(48)}
    shares = Global(PARTS, 4, scores)
    assert shares.units(0.0) == [16, 32]
    assert shares.units(16 / 48) == [16, 16]
    assert shares.units(24 / 48) == [8, 16]
    assert shares.units(1.0) == [4, 4]


def test_by_sensitivity_the_part_that_matters_less_loses_more():
    shares = BySensitivity(PARTS, 4, CURVES)
    assert shares.units(0.0) == [16, 32]
    assert shares.units(1.0) == [4, 4]
    found = [shares.units(step / 64) for step in range(65)]
    assert all(
        first >= second
        for one, other in zip(found, found[1:], strict=False)
        for first, second in zip(one, other, strict=True)
    )
    halved = next(units for units in found if units[1] <= 16)
    assert halved[0] == 16
    # Where cutting both alone would change the answers by 0.1: a quarter of the first, more than all of the second.
    bound = next(units for units in found if units[0] == 12)
    assert bound[1] == 4


def test_a_curve_that_falls_is_read_as_one_that_does_not():
    odd = Curve(("a.weight",), 16, (0.25, 0.5, 0.75), (0.2, 0.1, 0.3), None)
    found = [BySensitivity(PARTS[:1], 4, (odd,)).units(step / 32)[0] for step in range(33)]
    assert found == sorted(found, reverse=True)


def test_parts_that_do_not_matter_go_first_and_nothing_divides_by_zero():
    none = Curve(("a.weight",), 16, (0.25, 0.5, 0.75), (0.0, 0.0, 0.0), None)
    shares = BySensitivity(PARTS, 4, (none, CURVES[1]))
    assert shares.units(0.0) == [16, 32]
    assert shares.units(0.05)[0] == 4
