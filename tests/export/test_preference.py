from __future__ import annotations

import platform

import numpy as np
import pytest

from edgekd.export.model_id import ModelId
from edgekd.export.preference import preferences
from edgekd.runtime.bundle import EngineKey
from edgekd.runtime.statistics import packed

HERE = EngineKey.here("onnxruntime")
TENSORRT, OPENVINO, ELSEWHERE = EngineKey("tensorrt"), EngineKey("openvino"), EngineKey("onnxruntime")
INT8 = "int8-x64" if platform.machine() == "x86_64" else "int8"
ROLES = {"fp32": "student", "fp16": "student", "int8": "quantized", "int8-x64": "quantized"}
SHIPPED = {variant: ModelId(role, variant) for variant, role in ROLES.items()}


def _scores(**accuracies: float) -> dict:
    """Rows of 1000 images, of which the first ones are answered rightly; `int8` stands for both int8 graphs."""
    rows = {SHIPPED[variant]: value for variant, value in accuracies.items()}
    rows[SHIPPED["int8-x64"]] = accuracies["int8"]
    return {name: _row(value) for name, value in rows.items()}


def _row(accuracy: float, *, errors_first: bool = False) -> dict:
    correct = np.arange(1000) < round(1000 * accuracy)
    return {"accuracy": accuracy, "samples": 1000, "correct": packed(correct[::-1] if errors_first else correct)}


def _times(fp32: float, fp16: float, int8: float) -> dict:
    return {"onnxruntime": {SHIPPED["fp32"]: fp32, SHIPPED["fp16"]: fp16, SHIPPED[INT8]: int8}}


def test_the_fastest_of_the_equally_accurate_comes_first():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.898)
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 0.5))[HERE] == [INT8, "fp32", "fp16"]
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 1.5))[HERE] == ["fp32", INT8, "fp16"]


def test_a_small_loss_on_the_same_images_is_a_loss():
    # 1.5 points fewer: on the same images certainly worse, on others within the uncertainty.
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.885)
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 0.1))[HERE] == ["fp32", "fp16", INT8]
    scores[SHIPPED[INT8]] = _row(0.885, errors_first=True)
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 0.1))[HERE] == [INT8, "fp32", "fp16"]


def test_speed_does_not_buy_accuracy():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.85)
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 0.1))[HERE] == ["fp32", "fp16", INT8]


def test_latencies_within_five_percent_are_the_same():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.898)
    assert preferences(SHIPPED, scores, _times(1.0, 2.0, 0.97))[HERE] == ["fp32", INT8, "fp16"]


@pytest.mark.parametrize(
    ("machine", "order"), [("x86_64", ["fp32", "fp16", "int8-x64"]), ("aarch64", ["fp16", "fp32", "int8"])]
)
def test_a_graph_that_the_engine_converts_to_fp32_is_not_faster_than_fp32(monkeypatch, machine, order):
    # On x86 ONNX Runtime has no kernels for fp16: what was measured as a difference is a disturbance.
    monkeypatch.setattr(platform, "machine", lambda: machine)
    scores = _scores(fp32=0.90, fp16=0.901, int8=0.898)
    times = {SHIPPED["fp32"]: 1.0, SHIPPED["fp16"]: 0.7, SHIPPED["int8"]: 1.5, SHIPPED["int8-x64"]: 1.5}
    assert preferences(SHIPPED, scores, {"onnxruntime": times})[EngineKey.here("onnxruntime")] == order


def test_without_a_measurement_the_rule_stands():
    found = preferences(SHIPPED, _scores(fp32=0.9, fp16=0.9, int8=0.9), {})
    assert found[HERE] == ["fp32", INT8, "fp16"]
    assert set(found) == {HERE, ELSEWHERE, OPENVINO, TENSORRT}
    assert found[TENSORRT] == ["int8", "fp16", "fp32"] and found[OPENVINO] == ["int8", "fp32", "fp16"]
    assert found[ELSEWHERE] == ["fp32", "fp16"]
