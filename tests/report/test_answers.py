"""The sections on calibration and on the worst mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.report import answers
from edgekd.report.headline import chosen
from edgekd.report.html import render
from edgekd.report.record import parse
from edgekd.report.rows import model_labels

Json = dict[str, Any]


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


def calibration(record: Json) -> answers.CalibrationView:
    parsed = parse(record)
    found = answers.calibration(parsed, chosen(parsed), model_labels(parsed.models))
    assert found is not None
    return found


def test_every_file_has_its_calibration_and_the_headlines_is_drawn(whole: Json) -> None:
    found = calibration(whole)
    assert len(found.rows) == len(whole["models"]) and [row.chosen for row in found.rows].count(True) == 1
    (cells,) = (row.cells for row in found.rows if row.chosen)
    assert tuple(map(spaced, cells)) == ("4.1 %", "98.1 %", "96.8 %", "+1.3", "0.231")
    assert "80.0 %, 100" not in found.chart.wide and "right at" in found.chart.wide


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(0.981, "It is overconfident"), (0.6, "It is underconfident"), (0.97, "On average it is as confident")],
)
def test_the_verdict_is_about_the_mean_and_its_interval(whole: Json, confidence: float, verdict: str) -> None:
    for model in whole["models"]:
        model["calibration"]["confidence"] = confidence
    assert calibration(whole).summary.startswith(verdict)


def test_a_model_without_finite_outputs_has_no_diagram(whole: Json) -> None:
    for model in whole["models"]:
        model["calibration"] = None
    assert 'id="calibration"' not in render(whole)


def test_mistakes_are_shown_with_their_names_and_images(whole: Json) -> None:
    parsed = parse(whole)
    found = answers.worst(parsed, chosen(parsed), model_labels(parsed.models))
    assert found is not None and len(found.mistakes) == 12
    first = found.mistakes[0]
    assert (first.name, first.label, first.answer, spaced(first.probability)) == (
        "test/boot/0000.jpg",
        "boot",
        "clog",
        "99.0 %",
    )
    assert first.image == whole["images"][0]
    page, name = render(whole), "test/<wbr>boot/<wbr>0011.<wbr>jpg"
    assert page.count("<img") == 12 and name in page
    whole["images"] = {}
    page = render(whole)
    assert "<img" not in page and name in page


def test_a_model_without_mistakes_shows_none(whole: Json) -> None:
    for model in whole["models"]:
        model["worst"] = []
    assert 'id="worst"' not in render(whole)
