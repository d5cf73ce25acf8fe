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
    [
        (0.981, "Pruned and recovered, fp32 is overconfident: its mean confidence is 98.1 %, its accuracy 96.8 %."),
        (0.6, "Pruned and recovered, fp32 is underconfident"),
        (0.97, "On average Pruned and recovered, fp32 is as confident"),
    ],
)
def test_the_verdict_is_about_the_mean_and_its_interval(whole: Json, confidence: float, verdict: str) -> None:
    for model in whole["models"]:
        model["calibration"]["confidence"] = confidence
    assert spaced(calibration(whole).summary).startswith(verdict)


def test_a_model_without_finite_outputs_has_no_diagram(whole: Json) -> None:
    for model in whole["models"]:
        model["calibration"] = None
    assert 'id="calibration"' not in render(whole)


def test_mistakes_are_shown_with_their_names_and_images(whole: Json) -> None:
    parsed = parse(whole)
    found = answers.worst(parsed, chosen(parsed), model_labels(parsed.models))
    assert found is not None and len(found.mistakes) == 12
    first = found.mistakes[0]
    assert first.name == "test/boot/0000.jpg"
    faults = [(each.what, each.label, spaced(each.probability)) for each in first.faults]
    assert faults == [("answer", "clog", "99.0 %"), ("labelled", "boot", "")]
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


def test_labels_have_a_calibration_of_their_own(sets: Json) -> None:
    found = calibration(sets)
    (cells,) = (row.cells for row in found.rows if row.chosen)
    assert tuple(map(spaced, cells)) == ("3.1 %", "0.072", "23.0 %", "21.0 %", "+2.0 (+1.2 to +2.8)", "0.244")
    assert len(found.columns) == len(cells) + 1
    summary = "fp32 are too high: their mean is 23.0 %, and the images have 21.0 % of the labels."
    assert spaced(found.summary).endswith(summary)
    assert "labels present at" in found.chart.wide and "share of the labels" in found.chart.narrow


@pytest.mark.parametrize(
    ("difference", "interval", "verdict"),
    [(-0.02, [-0.03, -0.01], "are too low"), (0.004, [-0.004, 0.012], "On average the probabilities")],
)
def test_the_verdict_on_labels_is_about_the_difference(
    sets: Json, difference: float, interval: list[float], verdict: str
) -> None:
    for model in sets["models"]:
        model["calibration"].update(difference=difference, interval=interval)
    assert verdict in calibration(sets).summary


def test_wrong_labels_are_shown_with_their_images(sets: Json) -> None:
    parsed = parse(sets)
    found = answers.worst(parsed, chosen(parsed), model_labels(parsed.models))
    assert found is not None and found.which.startswith("with the most confident wrong labels of ")
    faults = [(each.what, each.label, spaced(each.probability)) for each in found.mistakes[0].faults]
    assert faults == [("given", "boot", "98.0 %"), ("missed", "clog", "4.0 %")]
    page = render(sets)
    assert page.count("<img") == 12 and "missed <strong>clog</strong> 4.0\u00a0%" in page
