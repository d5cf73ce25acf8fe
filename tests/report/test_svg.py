from __future__ import annotations

import re
from importlib.resources import files
from typing import get_args

import pytest

from edgekd.report import svg
from edgekd.report.svg import Box, Mark, Scale
from edgekd.runs import Colour, Shape


def test_a_linear_scale() -> None:
    scale = Scale(0.0, 4.0, 100.0, 300.0)
    assert [scale(value) for value in (0.0, 1.0, 4.0)] == [100.0, 150.0, 300.0]
    assert scale.ticks(4) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_log_scale_gives_equal_room_to_equal_ratios() -> None:
    scale = Scale(0.1, 10.0, 0.0, 200.0, log=True)
    assert [scale(value) for value in (0.1, 1.0, 10.0)] == pytest.approx([0.0, 100.0, 200.0])
    assert scale.ticks(8) == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
    assert scale.ticks(4) == pytest.approx([0.1, 0.3, 1.0, 3.0, 10.0])


@pytest.mark.parametrize(("rough", "step"), [(0.7, 1.0), (1.0, 1.0), (1.2, 2.0), (34.0, 50.0), (0.0051, 0.01)])
def test_steps_are_one_two_five(rough: float, step: float) -> None:
    assert svg.nice_step(rough) == pytest.approx(step)


def test_fifteen_labels_at_one_point_do_not_overlap() -> None:
    area = Box(0, 0, 300, 400)
    boxes = svg.place(["a model with a name"] * 15, [(150.0, 200.0)] * 15, area)
    assert not any(one.meets(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(box.left >= 0 and box.right <= 300 and box.top >= 0 and box.bottom <= 400 for box in boxes)


def test_spread_keeps_the_order_and_the_distance() -> None:
    assert svg.spread([50.0, 51.0, 20.0], 0.0, 60.0, 10.0) == [50.0, 60.0, 20.0]
    assert svg.spread([55.0, 58.0], 0.0, 60.0, 10.0) == [50.0, 60.0]


def test_elide_keeps_the_end() -> None:
    assert svg.elide("student fp16", 200) == "student fp16"
    short = svg.elide("Student pruned to half, int8", 14 * svg.CHARACTER)
    assert short.endswith(", int8") and "…" in short and len(short) <= 14


def test_elements_escape_what_they_are_given() -> None:
    assert svg.tag("text", "<b>", class_='"x') == '<text class="&#34;x">&lt;b&gt;</text>'


SHAPES = get_args(Shape)


def test_no_shape_is_drawn_like_another() -> None:
    """Without its class, which only the colour hangs on."""
    drawn = {re.sub(r' class="[^"]*"', "", svg.marker(Mark(shape, "ink"), 0.0, 0.0)) for shape in SHAPES}
    assert len(drawn) == len(SHAPES) == 7


def test_the_style_sheet_has_every_colour() -> None:
    css = files("edgekd.report").joinpath("templates/report.css").read_text()
    assert all(f"svg .{colour} {{" in css for colour in get_args(Colour))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mark_in_a_text_is_within_its_box(shape: str) -> None:
    drawn = svg.inline(Mark(shape, "ink"))
    assert 'aria-hidden="true"' in drawn
    corners = re.search(r' d="M([^"]*)Z"', drawn)
    if corners is not None:
        reach = max(abs(float(number)) for number in re.findall(r"-?[\d.]+", corners[1]))
        assert 5 <= reach <= 9
