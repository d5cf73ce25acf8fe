from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgekd.report import charts, svg
from edgekd.report.reliability import Level, reliability

MARK = svg.Mark("disc", "accent")


def level(number: int, count: int, accuracy: float, share: float) -> Level:
    confidence = (number + 0.5) / 15
    return Level(
        MARK, number, 15, count, share, confidence, accuracy, max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)
    )


@pytest.mark.parametrize("width", [charts.WIDE, charts.NARROW])
def test_marks_lie_on_the_diagonal_where_accuracy_is_confidence(width: float) -> None:
    levels = [level(number, 10, (number + 0.5) / 15, 1 / 15) for number in range(15)]
    drawn = ElementTree.fromstring(reliability(levels, width))
    (diagonal,) = (each.attrib for each in drawn.iter("line") if each.attrib["class"] == "curve grey")
    x1, y1, x2, y2 = (float(diagonal[name]) for name in ("x1", "y1", "x2", "y2"))
    marks = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in drawn.iter("circle")]
    assert len(marks) == 15
    for x, y in marks:
        assert (x - x1) / (x2 - x1) == pytest.approx((y - y1) / (y2 - y1), abs=2e-3)
    assert len([each for each in drawn.iter("line") if each.attrib["class"].startswith("whisker")]) == 15


@pytest.mark.parametrize("width", [charts.WIDE, charts.NARROW])
def test_the_bars_are_as_high_as_the_shares_and_everything_is_inside(width: float) -> None:
    drawn = ElementTree.fromstring(reliability([level(3, 30, 0.2, 0.3), level(14, 70, 0.9, 0.7)], width))
    _, _, wide, high = map(float, drawn.attrib["viewBox"].split())
    few, many = (each.attrib for each in drawn.iter("rect"))
    assert float(few["height"]) / float(many["height"]) == pytest.approx(3 / 7, abs=2e-3)
    assert float(few["x"]) + float(few["width"]) < float(many["x"])
    for bar in (few, many):
        assert 0 <= float(bar["x"]) and float(bar["x"]) + float(bar["width"]) <= wide
        assert float(bar["y"]) + float(bar["height"]) <= high
    assert "20.0\u00a0% of 30 images right at 23.3\u00a0%" in drawn.attrib["aria-label"]
