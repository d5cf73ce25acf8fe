from __future__ import annotations

import re
from typing import get_args

import pytest

from edgekd.report import svg
from edgekd.report.record import Role
from edgekd.report.svg import Box, Scale


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


ROLES = get_args(Role)


def test_every_role_has_a_shape_of_its_own() -> None:
    """Without its class, which only the colour hangs on, no sign is like another."""
    shapes = {re.sub(r' class="[^"]*"', "", svg.marker(role, 0.0, 0.0)) for role in ROLES}
    assert len(shapes) == len(ROLES) == 7


@pytest.mark.parametrize("role", ROLES)
def test_a_sign_in_a_text_is_within_its_box(role: str) -> None:
    drawn = svg.sign(role)
    assert 'aria-hidden="true"' in drawn
    corners = re.search(r' d="M([^"]*)Z"', drawn)
    if corners is not None:
        reach = max(abs(float(number)) for number in re.findall(r"-?[\d.]+", corners[1]))
        assert 5 <= reach <= 9
