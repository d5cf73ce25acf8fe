from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from records import measurement, model

from edgekd.recipe.settings import BudgetSettings
from edgekd.report.budget import judge
from edgekd.report.record import parse
from edgekd.report.verdict import Verdict
from edgekd.runtime.statistics import packed

Json = dict[str, Any]


def _model(role: str, variant: str, accuracy: float, size_bytes: int) -> Json:
    """Of models that fail on the same images, and on some more."""
    correct = packed(np.arange(2000) < round(accuracy * 2000))
    return model(role, variant, accuracy, size_bytes, correct=correct)


def _judged(record: Json, teacher: bool = True, **bounds: float) -> Verdict:
    return judge(BudgetSettings(**bounds), parse(record), teacher=teacher)


@pytest.fixture
def run(minimal: Json) -> Json:
    """A teacher, and a student that is quantized: int8-asym is the file that an app loads."""
    models = [
        _model("teacher", "fp32", 0.98, 90_000_000),
        _model("student", "fp32", 0.972, 6_000_000),
        _model("quantized", "int8-asym", 0.97, 1_500_000),
        _model("quantized", "int8", 0.97, 900_000),
    ]
    times = [measurement(name, ms) for name, ms in (("teacher-fp32", 9.0), ("student-fp32", 1.0))]
    times.append(measurement("quantized-int8-asym", 2.0))
    # The headline's engine comes first; others are not judged.
    times.append(measurement("student-fp32", 0.1, device="jetson", engine="tensorrt"))
    return {**minimal, "models": models, "measurements": times, "loaded": "quantized-int8-asym"}


def test_every_bound_is_judged_for_the_file_that_an_app_loads(run: Json) -> None:
    verdict = _judged(run, latency_ms=3, accuracy_drop=0.02, size_mb=1.5)
    assert verdict.met and verdict.model == "quantized-int8-asym" and verdict.engine == "onnxruntime 1.31.1"
    latency, drop, size = verdict.bounds
    assert latency.value == run["measurements"][2]["latency_ms"]["p50"] and size.value == 1.5
    assert drop.value == pytest.approx(0.01) and drop.against == "teacher-fp32" and verdict.within is None


def test_a_drop_as_large_as_the_bound_is_met_and_its_paired_interval_does_not_settle_it(run: Json) -> None:
    # 0.98 - 0.97 is above 0.01 in binary.
    (drop,) = _judged(run, accuracy_drop=0.01).bounds
    assert drop.met and not drop.settled and drop.interval is not None
    # The models fail on the same images: their difference is known better than either accuracy.
    low, high = drop.interval
    assert 0.0 < low < 0.01 < high < 0.02
    (wide,) = _judged(run, accuracy_drop=0.05).bounds
    (narrow,) = _judged(run, accuracy_drop=0.001).bounds
    assert (wide.met, wide.settled) == (True, True) and (narrow.met, narrow.settled) == (False, True)


def test_without_a_teacher_the_student_before_its_compression_is_the_reference(run: Json) -> None:
    del run["models"][0], run["measurements"][0]
    (drop,) = _judged(run, teacher=False, accuracy_drop=0.01).bounds
    assert drop.against == "student-fp32" and drop.value == pytest.approx(0.002) and drop.met
    # A teacher that was left out is not replaced by the student.
    (missing,) = _judged(run, accuracy_drop=0.01).bounds
    assert missing.value is None and not missing.met


def test_a_missed_bound_names_what_is_nearest_of_what_the_engine_runs(run: Json) -> None:
    verdict = _judged(run, latency_ms=0.5, size_mb=1.0)
    latency, size = verdict.bounds
    assert not verdict.met and not latency.met and not size.met and verdict.within is None
    assert latency.nearest is not None and latency.nearest.model == "student-fp32"
    assert size.nearest is None  # int8 is smaller, but for another engine
    assert _judged(run, latency_ms=1.5).within == "student-fp32"
    assert verdict.models == {"quantized-int8-asym", "student-fp32"}


def test_a_model_that_learned_nothing_misses_every_budget(run: Json) -> None:
    for entry in run["models"][1:]:
        entry["problems"] = ["one class, boot, for every image"]
    verdict = _judged(run, size_mb=100)
    assert not verdict.met and verdict.bounds[0].met and verdict.problems and verdict.within is None


def test_without_labels_the_agreement_is_judged(run: Json) -> None:
    for entry in run["models"]:
        entry["agreement"] = entry.pop("accuracy")
    run["data"]["measure"] = "agreement"
    met, missed = (_judged(run, agreement=share).bounds[0] for share in (0.97, 0.972))
    assert met.met and not missed.met and not missed.settled and missed.interval is not None
    assert missed.nearest is not None and missed.nearest.model == "student-fp32"


def test_with_several_labels_per_image_the_drop_is_one_of_map(run: Json) -> None:
    for entry, shift in zip(run["models"], (0.98, 0.97, 0.95, 0.95), strict=True):
        del entry["accuracy"], entry["correct"]
        entry |= {"mAP": shift, "chance": 0.2, "replicates": [shift - 0.001, shift, shift + 0.001]}
    run["data"]["measure"] = "mAP"
    (drop,) = _judged(run, accuracy_drop=0.02).bounds
    assert drop.value == pytest.approx(0.03) and not drop.met and drop.settled


def test_the_variant_that_the_budget_names_is_judged_or_was_left_out(run: Json) -> None:
    verdict = judge(BudgetSettings(size_mb=1, variant="int8"), parse(run), teacher=True)
    assert verdict.met and verdict.model == "quantized-int8" and verdict.engine is None
    lost = judge(BudgetSettings(size_mb=1, variant="fp16"), parse(run), teacher=True)
    assert not lost.met and lost.model is None and lost.problems == ("fp16 was left out of the bundle",)


def test_a_disturbed_latency_is_marked_as_such(run: Json) -> None:
    run["measurements"][2]["flags"] = ["the machine was busy with other work"]
    assert _judged(run, latency_ms=1).disturbed and not _judged(run, size_mb=1).disturbed


def test_an_emulated_latency_meets_no_bound(run: Json) -> None:
    for entry in run["measurements"]:
        entry["provenance"] = "emulated"
    verdict = _judged(run, latency_ms=1000)
    assert not verdict.met and verdict.bounds[0].value is None


def test_a_latency_that_was_not_measured_is_missed(run: Json) -> None:
    run["measurements"] = []
    (latency,) = _judged(run, latency_ms=1000).bounds
    assert latency.value is None and not latency.met
