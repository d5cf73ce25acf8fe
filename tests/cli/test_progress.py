"""The line of progress at several widths."""

from __future__ import annotations

import pytest

from edgekd.cli._progress import fitting

LEFT = ["4 min left", "run about 12 min"]


@pytest.mark.parametrize(
    ("room", "note", "line"),
    [
        (80, "epoch 6/14", "distill   42%  epoch 6/14  4 min left  run about 12 min"),
        (57, "epoch 6/14", "distill   42%  epoch 6/14  4 min left  run about 12 min"),
        (57, "epoch 6/14 of the student", "distill   42%  epoch 6/14 …  4 min left  run about 12 min"),
        (40, "epoch 6/14", "distill   42%  epoch 6/14  4 min left"),
        (30, "epoch 6/14", "distill   42%  4 min left"),
        (12, "epoch 6/14", "distill   42%"),
        (57, "", "distill   42%  4 min left  run about 12 min"),
    ],
)
def test_a_narrow_line_keeps_what_matters(room, note, line):
    assert "  ".join(fitting(room, ["distill", " 42%"], note, LEFT)) == line
    assert len(line) <= max(room, 13)
