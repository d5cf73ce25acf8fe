from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from edgekd.bench.measurement import Provenance
from edgekd.report import charts, svg
from edgekd.report.charts import Bar, Curve, Point, Strip

WIDTHS = [charts.WIDE, charts.NARROW]
SHAPES = ["square", "diamond", "disc", "triangle-up", "cross", "star", *["disc"] * 9]
MARKS = [svg.Mark(shape, "accent") for shape in SHAPES]
STUDENT = svg.Mark("disc", "accent")


PROVENANCES: tuple[Provenance, ...] = ("measured", "emulated", "estimated")


def some_points(count: int) -> list[Point]:
    return [
        Point(f"model {i}", MARKS[i], 20.0 / (i + 1), 0.98 - i / 200, 0.97 - i / 200, 0.99, PROVENANCES[i % 3])
        for i in range(count)
    ]


def some_strips(count: int) -> list[Strip]:
    samples = tuple(1.0 + i / 50 for i in range(200))
    return [Strip(f"model {i}", MARKS[i], samples[i * 5 :], 2.0, 3.0, 4.0) for i in range(count)]


def some_curves(count: int) -> list[Curve]:
    return [Curve(f"model {i}", MARKS[i], tuple((e, 0.9 - 0.5 / e) for e in range(1, 6))) for i in range(count)]


def some_bars(count: int) -> list[Bar]:
    return [Bar(f"model {i}", MARKS[i], 10 ** (i % 8)) for i in range(count)]


CHARTS = [
    (charts.scatter, some_points),
    (charts.strips, some_strips),
    (charts.curves, some_curves),
    (charts.bars, some_bars),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 3, 15])
@pytest.mark.parametrize(("draw", "make"), CHARTS)
def test_every_model_is_named_and_every_text_is_inside(draw, make, count, width) -> None:  # type: ignore[no-untyped-def]
    drawn = ElementTree.fromstring(draw(make(count), width))
    _, _, wide, high = map(float, drawn.attrib["viewBox"].split())
    texts = drawn.findall(".//text")
    written = [text.text or "" for text in texts]
    assert {f"model {index}" for index in range(count)} <= {text.partition(" (e")[0] for text in written}
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    for text in texts:
        length = svg.text_width(text.text or "")
        left = float(text.attrib["x"]) - shift[text.attrib["text-anchor"]] * length
        assert left >= -2 and left + length <= wide + 2, text.text
        assert 8 <= float(text.attrib["y"]) <= high, text.text


def test_a_point_stands_where_its_numbers_say() -> None:
    point = Point("only", STUDENT, 2.0, 0.9, 0.85, 0.95)
    drawn = ElementTree.fromstring(charts.scatter([point], 960.0))
    circle = drawn.find("circle")
    assert circle is not None
    # x: 0 to 2.2 ms over 56 to 932; y: 84 % to 96 % (a point of room) over 368 to 34
    assert float(circle.attrib["cx"]) == pytest.approx(56 + 876 / 1.1, abs=0.1)
    assert float(circle.attrib["cy"]) == pytest.approx((368 + 34) / 2, abs=0.1)


def test_bars_are_in_proportion() -> None:
    drawn = charts.bars([Bar("a", svg.Mark("square", "ink"), 8_000_000), Bar("b", STUDENT, 2_000_000)], 960.0)
    long, short = (float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn))
    assert long / short == pytest.approx(4.0, rel=0.01)


def test_an_estimate_without_samples_is_hollow() -> None:
    drawn = charts.strips([Strip("guess", STUDENT, (), 1.0, 1.1, 1.2, provenance="estimated")], 960.0)
    assert "hollow" in drawn and "guess (est.)" in drawn and "dots" not in drawn


def test_an_emulated_latency_is_hollow_and_called_so() -> None:
    drawn = charts.strips([Strip("arm", STUDENT, (1.0, 1.1), 1.0, 1.1, 1.2, provenance="emulated")], 960.0)
    assert "hollow" in drawn and "arm (emulated)" in drawn


def test_one_epoch_and_perfect_accuracy_can_be_drawn() -> None:
    assert "100.0" in charts.curves([Curve("only", STUDENT, ((1, 1.0),))], 340.0)
