from __future__ import annotations

import pytest

from edgekd.units import lost, points, significant, size, times


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_420, "1.42 kB"),
        (26_400, "26.4 kB"),
        (758_400, "758 kB"),
        (999_499, "999 kB"),
        (999_700, "1.00 MB"),
        (94_262_311, "94.3 MB"),
        (1_200_000_000, "1.20 GB"),
        (4_500_000_000_000, "4,500 GB"),
    ],
)
def test_sizes_have_three_figures_and_a_decimal_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers_keep_three_figures() -> None:
    values = (0, 0.3123, 0.9996, 3.125, 31.24, 99.97, 312.4, 1234.5, -0.5)
    found = [significant(value) for value in values]
    assert found == ["0", "0.312", "1.00", "3.12", "31.2", "100", "312", "1,234", "-0.500"]


def test_ratios_and_points_have_as_many_digits_as_they_deserve() -> None:
    assert [times(ratio) for ratio in (14.2, 2.34, 1.08)] == ["14×", "2.3×", "1.08×"]
    assert [points(share) for share in (-0.002, 0.0, 0.0131)] == ["−0.2 points", "±0.0 points", "+1.3 points"]
    assert points(-0.0021, 10_000) == "−0.21 points"


def test_a_loss_below_zero_is_a_gain() -> None:
    assert [lost(each) for each in (0.002, -0.005, -0.0004, 0.667)] == [
        "loses 0.2",
        "gains 0.5",
        "loses 0.0",
        "loses 66.7",
    ]
