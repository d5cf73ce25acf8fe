from __future__ import annotations

import pytest
import torch

from edgekd.export.model_id import ModelId
from edgekd.models import checkpoint as checkpoints
from edgekd.stages.evaluate import evaluate_models, wilson
from edgekd.training.train import evaluation_loader


def test_evaluation_counts_by_hand(exported, small_digits, tmp_path):
    student, models = exported
    network = checkpoints.load(student)
    evaluation = evaluate_models({ModelId("student", "fp32"): models["fp32"]}, small_digits, tmp_path)
    (row,) = evaluation.rows
    with torch.no_grad():
        batches = evaluation_loader(small_digits, "test").epoch(0)
        right = sum(int((network(batch.images).argmax(1) == batch.targets).sum()) for batch in batches)
    assert row["samples"] == small_digits.details.counts["test"]
    assert row["accuracy"] == pytest.approx(right / row["samples"])
    assert row["interval"][0] < row["accuracy"] < row["interval"][1] or right == 0


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
