"""Columns stand apart, in proportion and by name."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgekd.report import pruning_charts
from edgekd.report.pruning_charts import Layer, Sensitivity

WIDTHS = (960.0, 320.0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 60, 160])
def test_columns_of_layers_stand_apart_in_proportion_and_by_name(count: int, width: float) -> None:
    layers = [Layer(f"layer {i}", 64 * (i + 1), 16 * (i + 1)) for i in range(count)]
    drawn = ElementTree.fromstring(pruning_charts.widths(layers, width))
    groups = drawn.findall("g")
    assert [group.findtext("title") for group in groups][0] == "layer 0: 64 → 16"
    assert len(groups) == count
    right = 0.0
    for group in groups:
        before, after = group.findall("rect")
        assert float(before.attrib["x"]) >= right
        right = float(before.attrib["x"]) + float(before.attrib["width"])
        assert 0.5 < float(before.attrib["width"]) and right <= width
        assert float(before.attrib["height"]) == pytest.approx(4 * float(after.attrib["height"]), abs=0.3)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_more_is_cut_the_higher_its_column_and_gains_have_none(width: float) -> None:
    parts = [Sensitivity("stem", (0.0, 2.0, 8.0)), Sensitivity("blocks.1", (-1.0, 1.0, 4.0))]
    drawn = ElementTree.fromstring(pruning_charts.sensitivities(parts, width, unit="points of accuracy lost"))
    first, second = drawn.findall("g")
    assert first.findtext("title") == "stem: 0, 2, 8 points of accuracy lost"
    heights = [[float(column.attrib["height"]) for column in group.findall("rect")] for group in (first, second)]
    # Drawn from the most channels to the fewest, so that each stands before the one behind it.
    assert heights[0][0] == pytest.approx(4 * heights[0][1], rel=0.01) and heights[0][2] == 0.0
    assert heights[1][0] == pytest.approx(heights[0][0] / 2, rel=0.01) and heights[1][2] == 0.0
