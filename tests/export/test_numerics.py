from __future__ import annotations

import numpy as np
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
    with pytest.raises(ExportError, match=r"does not compute what X computes(?s:.)*at most 0.001, "):
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


def test_an_unstable_reference_explains_a_difference_of_its_own_size(exported, small_digits):
    file, inputs = exported[1]["fp32"].graph, real_inputs(small_digits)
    found = open_session(file).bind(inputs)()
    scale, rng, seen = float(np.abs(found).max()), np.random.default_rng(0), []
    logits = found + rng.uniform(-0.4, 0.4, found.shape).astype(np.float32) * scale

    def moving_by(share):
        def again(disturbed):
            seen.append(np.abs(disturbed - inputs).max() / np.abs(inputs).max())
            return logits + rng.uniform(-share, share, found.shape).astype(np.float32) * scale

        return Expected(inputs, logits, "X", again=again)

    tolerance = Tolerance(difference=0.1, agreement=0.9)
    report = compare(file, moving_by(0.5), tolerance)
    assert 0.0 < max(seen) <= 0.011 / 127  # a hundredth of an int8 step
    own = np.abs(logits).max() / scale
    assert report["unstable"] == pytest.approx(0.5 / own, rel=0.05)
    assert report["tolerance"]["difference"] == pytest.approx(2 * report["unstable"])
    assert report["max_difference"] <= report["tolerance"]["difference"]
    with pytest.raises(ExportError, match="at most 0.1, "):
        compare(file, moving_by(0.1), tolerance)
    with pytest.raises(ExportError, match="at most 0.1, "):
        compare(file, Expected(inputs, logits, "X"), tolerance)


def test_near_ties_are_judged_apart(exported, small_digits):
    file = exported[1]["fp32"].graph
    inputs = real_inputs(small_digits)
    found = open_session(file).bind(inputs)().astype(np.float64)
    scale = np.abs(found).max()
    # Expected: the two best answers exchanged wherever they are near, by less than is accepted.
    order = np.argsort(found, axis=1)
    first, second = order[:, -1], order[:, -2]
    rows = np.arange(len(found))
    gap = found[rows, first] - found[rows, second]
    limit = float(np.median(gap))
    near = gap < limit
    other = found.copy()
    other[rows[near], first[near]], other[rows[near], second[near]] = (
        found[rows[near], second[near]],
        found[rows[near], first[near]],
    )
    tolerance = Tolerance(difference=limit / scale, agreement=1.0)
    report = compare(file, Expected(inputs, other.astype(np.float32), "X"), tolerance)
    assert report["agreement"] == 1.0 and report["near_ties"] >= near.sum()
    assert report["agreement_of_all"] == pytest.approx(1.0 - near.mean())
    clear = found.copy()
    clear[rows[~near], first[~near]], clear[rows[~near], second[~near]] = (
        found[rows[~near], second[~near]],
        found[rows[~near], first[~near]],
    )
    with pytest.raises(ExportError, match=r"agreement 0.00% on the \d+ of \d+ images without a near-tie"):
        compare(
            file, Expected(inputs, clear.astype(np.float32), "X"), Tolerance(difference=limit / scale, agreement=0.5)
        )


def test_the_message_has_the_numbers_that_were_compared(exported, small_digits):
    file = exported[1]["fp32"].graph
    inputs = real_inputs(small_digits)
    logits = open_session(file).bind(inputs)()
    with pytest.raises(ExportError, match=r"a difference of 0.16\d* of(?s:.)*at most 0.15, and at least 90.00%"):
        compare(file, Expected(inputs, logits / 1.165, "X"), Tolerance(difference=0.15, agreement=0.9))


def test_independent_classes_agree_by_their_signs(exported, small_digits):
    file = exported[1]["fp32"].graph
    inputs = real_inputs(small_digits)
    found = open_session(file).bind(inputs)()
    loose = Tolerance(difference=9.0, agreement=0.01)
    # Another class is on top, but no sign changes: for one label per image another answer, for several the same.
    other = np.where(found > 0, found[:, ::-1].max() + np.arange(10), found - np.arange(10))
    assert compare(file, Expected(inputs, other, "X", multilabel=True), loose)["agreement_of_all"] == 1.0
    with pytest.raises(ExportError, match="agreement 0"):
        compare(file, Expected(inputs, -found, "X", multilabel=True), loose)
    # The logit that is nearest to 0, on the other side of it: a near-tie, judged apart.
    row, column = np.unravel_index(np.abs(found).argmin(), found.shape)
    near = found.copy()
    near[row, column] *= -1
    accepted = Tolerance(difference=2.1 * float(np.abs(found).min() / np.abs(found).max()), agreement=1.0)
    report = compare(file, Expected(inputs, near, "X", multilabel=True), accepted)
    assert report["agreement"] == 1.0 > report["agreement_of_all"] and 1 <= report["near_ties"] < len(found)
