"""Calibration of probabilities of which each is about one class of an image."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime.label_calibration import LabelBin, calibration_error, label_calibration, sigmoid


def test_sigmoid_without_overflow() -> None:
    found = sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=np.float32))
    assert found == pytest.approx([0.0, 0.2689414, 0.5, 0.7310586, 1.0]) and found.dtype == np.float32


def test_two_images_by_hand() -> None:
    scores = np.array([[0.5, 0.9], [0.5, 0.1]])
    labels = np.array([[True, True], [True, False]])
    found = label_calibration(np.log(scores / (1 - scores)), labels)
    # 0.5 is in bin 8 of 15, where both labels are there; the others are off by 0.1 each, alone in their bins.
    assert found.ece == pytest.approx((2 * 0.5 + 0.1 + 0.1) / 4)
    assert found.brier == pytest.approx((2 * 0.25 + 2 * 0.01) / 4)
    assert found.nll == pytest.approx(-(2 * np.log(0.5) + 2 * np.log(0.9)) / 4)
    assert (found.probability, found.frequency, found.labels) == (pytest.approx(0.5), 0.75, 4)
    assert found.difference == pytest.approx(-0.25)
    # Of the images: -0.3 and -0.2.
    assert found.interval == pytest.approx((-0.25 - 1.96 * 0.05, -0.25 + 1.96 * 0.05), abs=1e-4)
    assert [each.count for each in found.bins] == [0, 1, *[0] * 5, 2, *[0] * 5, 1, 0]
    assert found.bins[7] == LabelBin(2, pytest.approx(0.5), 1.0) and found.bins[0] == LabelBin(0, None, None)


def test_extreme_logits_have_a_finite_likelihood() -> None:
    found = label_calibration(np.array([[1e4, -1e4]]), np.array([[False, False]]))
    assert found.nll == pytest.approx(5e3) and found.brier == 0.5 and found.interval == (-0.5, 1.0)


def test_labels_drawn_from_the_probabilities_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 3))
    labels = generator.random(logits.shape) < sigmoid(logits)
    found = label_calibration(logits, labels)
    assert found.ece < 0.01 and found.interval[0] < 0 < found.interval[1]
    assert calibration_error(sigmoid(logits[:, 0]).astype(np.float64), labels[:, 0]) < 0.02
    assert label_calibration(logits + 0.2, labels).interval[0] > 0
