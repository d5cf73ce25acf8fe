from __future__ import annotations

import pytest

from edgekd.report import figures


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("share", "samples", "text"),
    [
        (0.9723, 360, "97.2 %"),
        (0.9723, 10_000, "97.23 %"),
        (1.0, 360, "100.0 %"),
        (0.9999, 360, "> 99.9 %"),
        (0.0, 10, "0.0 %"),
    ],
)
def test_percent_never_rounds_up_to_perfect(share: float, samples: int, text: str) -> None:
    assert spaced(figures.percent(share, samples)) == text


@pytest.mark.parametrize(
    ("gap", "text"), [(0.013, "+1.3 points"), (-0.021, "−2.1 points"), (0.0, "±0.0 points"), (0.0004, "±0.0 points")]
)
def test_points_carry_their_sign(gap: float, text: str) -> None:
    assert spaced(figures.points(gap)) == text


def test_units() -> None:
    assert spaced(figures.size(999)) == "999 B"
    assert spaced(figures.size(999_700)) == "1.00 MB"
    assert spaced(figures.amount(11_200_000)) == "11.2 M"
    assert [spaced(figures.seconds(value)) for value in (0.42, 59.6, 192, 3840)] == [
        "0.4 s",
        "1 min 00 s",
        "3 min 12 s",
        "1 h 04 min",
    ]
    assert [figures.times(ratio) for ratio in (14.2, 9.14, 1.08)] == ["14×", "9.1×", "1.08×"]


def test_ordinals() -> None:
    assert [figures.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 21)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "21st",
    ]
