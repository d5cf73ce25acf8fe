"""The report says what int8 lost, what stays in float for it, and what it costs where."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from records import Json

from edgekd.report import quantization
from edgekd.report.record import Quantization, parse


def _record(whole: Json, **changes: object) -> Quantization:
    whole["quantization"]["mixed"] |= changes
    record = parse(whole).quantization
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, ", with 1 operation in float it loses 0.2; it may lose at most 0.5"),
        (
            {"after": {"value": -0.005, "low": -0.012, "high": 0.002}},
            ", with 1 operation in float it gains 0.5; it may lose at most 0.5",
        ),
        (
            {"met": False, "after": {"value": 0.009, "low": 0.002, "high": 0.016}},
            ", with 1 operation in float it loses 0.9, more than the 0.5 that it may lose",
        ),
        ({"kept": []}, ", which may be chance: nothing stays in float for it"),
    ],
)
def test_the_loss_and_what_was_done_about_it_are_stated(whole: Json, changes, end) -> None:
    ((name, text),) = quantization.searched(_record(whole, **changes))
    assert (name, text) == ("Lost by int8", f"2.1 points of accuracy on 2,048 validation images{end}")


@pytest.mark.parametrize("width", [360.0, 900.0])
def test_the_most_sensitive_operation_has_the_highest_column(whole: Json, width: float) -> None:
    mixed = _record(whole).mixed
    assert mixed is not None
    drawn = ElementTree.fromstring(quantization.operations(mixed.sensitivity, width))
    groups = drawn.findall("g")
    assert len(groups) == 60
    assert groups[-1].findtext("title") == "classifier.1: 3.1 % of error in the answers"
    heights = [float(column.attrib["height"]) for group in groups for column in group.findall("rect")]
    assert max(heights) == heights[-1] > 40 * heights[-2]


def test_where_nothing_was_looked_for_nothing_is_shown(whole: Json) -> None:
    assert quantization.sensitivity(_record(whole)) is not None
    assert quantization.sensitivity(_record(whole, sensitivity=[])) is None
    whole["quantization"]["mixed"] = None
    record = parse(whole).quantization
    assert record is not None
    assert quantization.sensitivity(record) is None and quantization.searched(record) == []
    assert quantization.sensitivity(None) is None
