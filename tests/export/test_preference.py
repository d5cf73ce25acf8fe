from __future__ import annotations

import platform

import numpy as np
import pytest
from turns import given_turns

from edgekd.export.accuracy_budget import AccuracyBudget
from edgekd.export.fusion import Fusion
from edgekd.export.model_id import ModelId
from edgekd.export.preference import Evidence, Preference, fusions_of, preferences
from edgekd.runtime.bundle import EngineKey
from edgekd.runtime.statistics import packed

HERE = EngineKey.here("onnxruntime")
TENSORRT, OPENVINO, ELSEWHERE = EngineKey("tensorrt"), EngineKey("openvino"), EngineKey("onnxruntime")
INT8 = "int8-asym"
ROLES = {"fp32": "student", "fp16": "student", "int8": "quantized", "int8-asym": "quantized"}
SHIPPED = {variant: ModelId(role, variant) for variant, role in ROLES.items()}


def _scores(**accuracies: float) -> dict:
    """Rows of 1000 images, of which the first ones are answered rightly; `int8` stands for both int8 graphs."""
    rows = {SHIPPED[variant]: value for variant, value in accuracies.items()}
    rows[SHIPPED["int8-asym"]] = accuracies["int8"]
    return {name: _row(value) for name, value in rows.items()}


def _row(accuracy: float, *, errors_first: bool = False) -> dict:
    correct = np.arange(1000) < round(1000 * accuracy)
    return {"accuracy": accuracy, "samples": 1000, "correct": packed(correct[::-1] if errors_first else correct)}


def _times(fp32: float, fp16: float, int8: float, **changes: object) -> dict:
    return {"onnxruntime": given_turns({"fp32": fp32, "fp16": fp16, INT8: int8}, **changes)}


def _preferred(scores: dict, turns: dict, fusions: dict | None = None, **more: object) -> dict[EngineKey, Preference]:
    evidence = {"sizes": dict.fromkeys(SHIPPED, 1000), "turns": turns, "fusions": fusions or {}, **more}
    return preferences(Evidence(SHIPPED, scores, **evidence))


def test_the_fastest_of_the_equally_accurate_comes_first():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.898)
    assert _preferred(scores, _times(1.0, 2.0, 0.5))[HERE].order == [INT8, "fp32", "fp16"]
    assert _preferred(scores, _times(1.0, 2.0, 1.5))[HERE].order == ["fp32", INT8, "fp16"]


def test_a_small_loss_on_the_same_images_is_a_loss():
    # 1.5 points fewer: on the same images certainly worse, on others within the uncertainty.
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.885)
    assert _preferred(scores, _times(1.0, 2.0, 0.1))[HERE].order == ["fp32", "fp16", INT8]
    scores[SHIPPED[INT8]] = _row(0.885, errors_first=True)
    assert _preferred(scores, _times(1.0, 2.0, 0.1))[HERE].order == [INT8, "fp32", "fp16"]


def test_speed_does_not_buy_accuracy():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.85)
    assert _preferred(scores, _times(1.0, 2.0, 0.1))[HERE].order == ["fp32", "fp16", INT8]


def test_latencies_within_five_percent_or_their_spread_are_the_same():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.898)
    assert _preferred(scores, _times(1.0, 2.0, 0.97))[HERE].order == ["fp32", INT8, "fp16"]
    assert _preferred(scores, _times(1.0, 2.0, 0.8, spread=0.3))[HERE].order == ["fp32", INT8, "fp16"]
    assert _preferred(scores, _times(1.0, 2.0, 0.8, spread=0.1))[HERE].order == [INT8, "fp32", "fp16"]


def test_of_equally_fast_and_accurate_ones_the_smallest_comes_first():
    scores, times = _scores(fp32=0.90, fp16=0.90, int8=0.90), _times(1.0, 2.0, 0.97)
    for int8, order in ((300, [INT8, "fp32", "fp16"]), (1200, ["fp32", INT8, "fp16"])):
        sizes = {**dict.fromkeys(SHIPPED, 1000), INT8: int8}
        assert _preferred(scores, times, sizes=sizes)[HERE].order == order


def test_a_variant_within_the_budget_of_accuracy_may_come_first():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.885)
    scores[ModelId("teacher", "fp32")] = _row(0.905)
    for drop, first in ((0.02, INT8), (0.01, "fp32")):
        found = _preferred(scores, _times(1.0, 2.0, 0.5), budget=AccuracyBudget(drop, ModelId("teacher", "fp32")))
        assert found[HERE].order[0] == first and "against teacher-fp32 (budget.accuracy_drop)" in found[HERE].reason
        # Also where nothing was measured: 62 of 63 operators are computed in int8.
        fused = {"onnxruntime": {INT8: Fusion(62, 1, 3)}}
        budget = AccuracyBudget(drop, ModelId("teacher", "fp32"))
        assert _preferred(scores, {}, fused, budget=budget)[ELSEWHERE].order[0] == first
    assert _preferred(scores, _times(1.0, 2.0, 0.5))[HERE].order[0] == "fp32"


def test_a_fast_one_that_may_not_come_first_does_not_make_the_others_unequal():
    scores = _scores(fp32=0.90, fp16=0.90, int8=0.85)
    turns = {"onnxruntime": given_turns({"fp32": 1.0, "fp16": 0.97, INT8: 0.1})}
    assert _preferred(scores, turns)[HERE].order == ["fp32", "fp16", INT8]


@pytest.mark.parametrize(
    ("machine", "order"), [("x86_64", ["fp32", "fp16", "int8-asym"]), ("aarch64", ["fp16", "fp32", "int8-asym"])]
)
def test_a_graph_that_the_engine_converts_to_fp32_is_not_faster_than_fp32(monkeypatch, machine, order):
    # On x86 ONNX Runtime has no kernels for fp16: what was measured as a difference is a disturbance.
    monkeypatch.setattr(platform, "machine", lambda: machine)
    scores = _scores(fp32=0.90, fp16=0.901, int8=0.898)
    times = {"fp32": 1.0, "fp16": 0.7, "int8": 1.5, "int8-asym": 1.5}
    assert _preferred(scores, {"onnxruntime": given_turns(times)})[EngineKey.here("onnxruntime")].order == order


def test_without_a_measurement_the_rule_stands():
    found = _preferred(_scores(fp32=0.9, fp16=0.9, int8=0.9), {})
    orders = {engine: preference.order for engine, preference in found.items()}
    assert set(orders) == {HERE, ELSEWHERE, OPENVINO, TENSORRT}
    assert orders[TENSORRT] == ["int8", "fp16", "fp32"] and orders[OPENVINO] == ["int8", "fp32", "fp16"]
    assert orders[HERE] == orders[ELSEWHERE] == ["fp32", INT8, "fp16"]
    assert {preference.reason for preference in found.values()} == {"by rule, not measured"}


def test_an_order_that_lacks_a_measurement_is_not_a_measured_one():
    scores, times = _scores(fp32=0.9, fp16=0.9, int8=0.9), _times(1.0, 2.0, 0.5)
    assert _preferred(scores, times)[HERE].reason.startswith(f"{INT8} wins: 2.0× faster than fp32 (0.500")
    times = {"onnxruntime": given_turns({"fp32": 1.0, INT8: 0.5})}
    assert _preferred(scores, times)[HERE].reason == "by rule, not measured"


@pytest.mark.parametrize(
    ("fusion", "int8", "order"),
    [
        (Fusion(62, 1, 3), 0.9, [INT8, "fp32", "fp16"]),
        (Fusion(69, 57, 80), 0.9, ["fp32", INT8, "fp16"]),  # MobileNetV3: half of it in float
        (Fusion(62, 1, 3), 0.7, ["fp32", INT8, "fp16"]),  # fused, but certainly less accurate
    ],
)
def test_where_nothing_was_measured_what_the_engine_fuses_decides(fusion, int8, order):
    scores, fusions = _scores(fp32=0.9, fp16=0.9, int8=int8), {"onnxruntime": {INT8: fusion}}
    found = _preferred(scores, _times(1.0, 2.0, 1.5), fusions)
    assert found[ELSEWHERE].order == order
    verdict = f"{INT8} is first: " if order[0] == INT8 else f"fp32 is the default; {INT8} is not first: "
    assert found[ELSEWHERE].reason.startswith(verdict)
    assert ("not a score within the uncertainty" in found[ELSEWHERE].reason) == (int8 == 0.7)
    # Where all was measured, and for an engine that could not be looked at, nothing changes.
    assert found[HERE].order[0] == "fp32" and found[TENSORRT].order == ["int8", "fp16", "fp32"]


def test_of_the_int8_graphs_the_asymmetric_one_is_looked_at(int8_graphs):
    files = {name: model.graph for name, model in int8_graphs[2].items()}
    assert list(fusions_of(files)["onnxruntime"]) == [INT8]
