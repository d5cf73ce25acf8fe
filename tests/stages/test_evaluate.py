from __future__ import annotations

import pytest
import torch

from edgekd.export.model_id import ModelId
from edgekd.models import checkpoint as checkpoints
from edgekd.runtime.statistics import unpacked
from edgekd.stages.evaluate import evaluate_models
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


def test_answers_are_kept_image_by_image_and_a_network_that_learned_nothing_is_named(exported, small_digits, tmp_path):
    _, models = exported
    both = {ModelId("student", name): models[name] for name in ("fp32", "fp16")}
    evaluation = evaluate_models(both, small_digits, tmp_path)
    one, other = evaluation.rows
    right = unpacked(one["correct"], one["samples"])
    assert (
        right.mean() == pytest.approx(one["accuracy"]) and (right == unpacked(other["correct"], 1 * len(right))).all()
    )
    # This network is not trained.
    assert one["problems"] == other["problems"] and len(one["problems"]) == 1
    assert evaluation.metrics["warnings"] == [f"student-fp32, student-fp16: {one['problems'][0]}."]
    assert 0.09 < one["majority"]["share"] < 0.2 and 0.0 <= one["balanced_accuracy"] <= 1.0
