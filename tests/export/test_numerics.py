from __future__ import annotations

import pytest

from edgekd.errors import ExportError
from edgekd.export.numerics import Expected, compare, real_inputs
from edgekd.recipe.settings import Tolerance
from edgekd.runtime.backends import open_session


def test_a_graph_that_computes_something_else_fails_the_stage(exported, small_digits):
    _, models = exported
    inputs = real_inputs(small_digits)
    expected = open_session(models["fp32"].graph).bind(inputs)()
    strict = Tolerance(difference=1e-3, agreement=0.99)
    with pytest.raises(ExportError, match=r"does not compute what X computes(?s:.)*at most 1e-03"):
        compare(models["fp32"].graph, Expected(inputs, expected * 1.01, "X"), strict)
    with pytest.raises(ExportError, match="agreement 0"):
        compare(models["fp32"].graph, Expected(inputs, -expected, "X"), Tolerance(difference=9.0, agreement=0.5))


def test_an_answer_agrees_where_every_heads_does(exported, small_digits):
    file = exported[1]["fp32"].graph
    inputs = real_inputs(small_digits)
    found = open_session(file).bind(inputs)()
    # The last two logits swapped: where these are no network's top answer, only a head of their own tells.
    swapped = found[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 8]]
    loose = Tolerance(difference=9.0, agreement=0.01)
    with pytest.raises(ExportError, match="agreement 0"):
        compare(file, Expected(inputs, swapped, "X"), loose, heads=[2])
    report = compare(file, Expected(inputs, swapped, "X"), loose, heads=[3, 1, 1])
    assert report["agreement"] == 1.0
