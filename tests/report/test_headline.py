from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.errors import ArtifactError
from edgekd.report.headline import chosen, difference, headline
from edgekd.report.model_record import ModelEntry
from edgekd.report.record import parse
from edgekd.runtime.statistics import packed, paired, unpaired

Json = dict[str, Any]
N = 2000


def entry(name: str, accuracy: float, size: int, half: float = 0.005) -> Json:
    role, _, variant = name.partition("-")
    common = {
        "ships": role not in ("teacher", "baseline", "ptq"),
        "samples": N,
        "parameters": 10,
        "macs": None,
        "seconds": None,
    }
    interval = [max(0.0, accuracy - half), min(1.0, accuracy + half)]
    names = {"id": name, "role": role, "title": role, "variant": variant, "precision": "fp32", "architecture": "net"}
    return {**common, **names, "accuracy": accuracy, "interval": interval, "size_bytes": size}


def timing(name: str, p50: float) -> Json:
    latency = dict.fromkeys(("min", "mean", "p50", "p90", "p95", "p99", "max"), p50) | {"std": 0.0}
    numbers = {"throughput_per_s": 1.0, "load_ms": 1.0, "first_inference_ms": 1.0, "peak_bytes": None}
    where = {"device": "d", "engine": "e", "threads": 1, "batch_size": 1, "provenance": "measured"}
    return {"model": name, **where, **numbers, "latency_ms": latency, "samples_ms": [], "flags": []}


def sentence(minimal: Json, models: list[Json], **latencies: float) -> str:
    timings = [timing(name.replace("_", "-"), p50) for name, p50 in latencies.items()]
    return headline(parse({**minimal, "models": models, "measurements": timings})).replace("\u00a0", " ")


TEACHER = entry("teacher-fp32", 0.981, 14_000_000)
BASELINE = entry("baseline-fp32", 0.959, 1_000_000)
STUDENT = entry("student-fp32", 0.972, 1_000_000)


def test_a_good_run(minimal: Json) -> None:
    text = sentence(minimal, [TEACHER, BASELINE, STUDENT], teacher_fp32=2.79, student_fp32=0.31)
    assert text == (
        "97.2 % at 0.310 ms: 14× smaller and 9.0× faster than the teacher, "
        "+1.3 points over the same student trained on labels only."
    )


def test_a_student_that_distillation_made_worse(minimal: Json) -> None:
    text = sentence(minimal, [TEACHER, BASELINE, entry("student-fp32", 0.94, 1_000_000)])
    assert text == (
        "94.0 % in 1.00 MB: 14× smaller than the teacher, −1.9 points against the same student trained on labels only."
    )


def test_a_gain_within_the_interval_is_not_a_gain(minimal: Json) -> None:
    text = sentence(minimal, [BASELINE, entry("student-fp32", 0.964, 1_000_000)])
    assert text == (
        "96.4 % in 1.00 MB: not significantly different "
        "from the same student trained on labels only (+0.5 points, within the 95 % interval)."
    )


def test_another_architecture_is_not_the_same_student(minimal: Json) -> None:
    other = {**STUDENT, "architecture": "pruned"}
    assert sentence(minimal, [BASELINE, other]).endswith("+1.3 points over the baseline trained on labels only.")


def test_smaller_but_slower(minimal: Json) -> None:
    text = sentence(minimal, [TEACHER, STUDENT], teacher_fp32=1.0, student_fp32=1.5)
    assert text == "97.2 % at 1.50 ms: 14× smaller but 1.5× slower than the teacher."


def test_about_the_same_is_not_called_a_gain(minimal: Json) -> None:
    twin = entry("student-fp32", 0.972, 13_900_000)
    text = sentence(minimal, [TEACHER, twin], teacher_fp32=1.0, student_fp32=1.01)
    assert text == "97.2 % at 1.01 ms: as large and as fast as the teacher."


def test_without_a_teacher_or_a_baseline(minimal: Json) -> None:
    assert sentence(minimal, [STUDENT]) == "97.2 % in 1.00 MB."


def test_without_a_student(minimal: Json) -> None:
    assert sentence(minimal, [TEACHER]) == "The teacher: 98.1 % in 14.0 MB."


def test_without_any_model(minimal: Json) -> None:
    assert sentence(minimal, []) == "No model was made in this run."


def test_an_estimate_is_called_one(minimal: Json) -> None:
    guess = {**timing("student-fp32", 0.31), "provenance": "estimated"}
    record = parse({**minimal, "models": [STUDENT], "measurements": [guess]})
    assert headline(record).replace("\u00a0", " ") == "97.2 % at an estimated 0.310 ms."


def test_an_emulated_latency_is_called_one_and_compared_with_none(minimal: Json) -> None:
    timings = [{**timing(name, 3.0), "provenance": "emulated"} for name in ("student-fp32", "teacher-fp32")]
    record = parse({**minimal, "models": [TEACHER, STUDENT], "measurements": timings})
    assert headline(record).replace("\u00a0", " ") == "97.2 % at an emulated 3.00 ms: 14× smaller than the teacher."


def test_what_an_app_gets_is_what_the_sentence_is_about(minimal: Json) -> None:
    models = [STUDENT, entry("student-fp16", 0.96, 500_000)]
    record = parse({**minimal, "models": models, "loaded": "student-fp16"})
    assert (star := chosen(record)) is not None and star.id == "student-fp16"
    with pytest.raises(ArtifactError, match="no such model: student-int8"):
        parse({**minimal, "models": models, "loaded": "student-int8"})


def test_without_an_order_the_most_accurate_file_of_the_bundle_is_meant(minimal: Json) -> None:
    unshipped = {**entry("teacher-fp32", 0.99, 9_000_000), "ships": False}
    models = [unshipped, STUDENT, entry("student-fp16", 0.5, 500_000)]
    assert (star := chosen(parse({**minimal, "models": models}))) is not None and star.id == "student-fp32"


def test_a_pruned_student_is_compared_with_the_unpruned_one(minimal: Json) -> None:
    baseline, pruned = {**BASELINE, "macs": 20}, {**entry("pruned-fp32", 0.972, 500_000), "macs": 9}
    text = sentence(minimal, [baseline, pruned])
    assert text == "97.2 % in 500 kB: +1.3 points over the unpruned student trained on labels only."


def test_differences_are_paired_where_the_single_answers_are_known() -> None:
    right = np.arange(N) < 0.90 * N
    fewer = right & (np.arange(N) >= 20)  # a point fewer, all of them on images that the other answers
    one, other = (
        ModelEntry.model_validate({**entry("student-x", accuracy, 1), "correct": packed(correct)})
        for accuracy, correct in ((0.90, right), (0.89, fewer))
    )
    assert difference(one, other) == paired(right, fewer) and difference(one, other).certain
    known = one.model_copy(update={"correct": ""})  # a report of an earlier version
    assert difference(known, other) == unpaired((1800, N), (1780, N)) and not difference(known, other).certain


def test_a_model_that_learned_nothing_is_not_praised(minimal: Json) -> None:
    problems = ["one class, disc, for every image"]
    student = {**entry("student-fp32", 0.49, 1_000_000), "problems": problems}
    text = sentence(minimal, [TEACHER, BASELINE, student], teacher_fp32=2.79, student_fp32=0.31)
    assert text == "Not usable: one class, disc, for every image."


def test_a_variant_that_was_left_out_is_named(minimal: Json) -> None:
    minimal["left_out"] = ["int8", "int8-asym"]
    text = sentence(minimal, [entry("student-fp32", 0.9, 100)], student_fp32=1.0)
    assert text.endswith(". int8 and int8-asym were left out, see the warnings.")


def test_no_model_is_praised_for_answering_as_itself(minimal: Json) -> None:
    minimal["data"]["measure"] = "agreement"
    models = [entry("student-fp32", 1.0, 1_000_000), entry("quantized-int8", 0.95, 300_000)]
    models[1]["precision"] = "int8"
    for model in models:
        model["agreement"] = model.pop("accuracy")
    minimal["loaded"] = "student-fp32"
    text = sentence(minimal, models, student_fp32=0.25)
    assert text == "fp32 in 1.00 MB, 0.250 ms: int8 gives 95.0 % of its answers."


def test_a_speed_that_was_measured_on_a_disturbed_machine_says_so(minimal: Json) -> None:
    timings = [timing("teacher-fp32", 2.79), {**timing("student-fp32", 0.31), "flags": ["the machine was busy"]}]
    text = headline(parse({**minimal, "models": [TEACHER, STUDENT], "measurements": timings}))
    assert text.replace("\u00a0", " ").endswith("9.0× faster than the teacher (on a disturbed machine).")


def test_what_was_certainly_lost_against_the_teacher_comes_before_what_was_gained(minimal: Json) -> None:
    poor = entry("student-fp32", 0.187, 1_000_000)
    text = sentence(minimal, [TEACHER, poor], teacher_fp32=2.79, student_fp32=0.31)
    assert text == ("18.7 % at 0.310 ms: 79.4 points below the teacher, 14× smaller and 9.0× faster than the teacher.")
    near = entry("student-fp32", 0.92, 1_000_000)  # 6.1 points, of which 4.8 are certain
    assert "below" not in sentence(minimal, [TEACHER, near])


def test_what_compression_certainly_lost_is_said_where_there_is_no_teacher(minimal: Json) -> None:
    minimal["loaded"] = "pruned-fp32"
    text = sentence(minimal, [STUDENT, entry("pruned-fp32", 0.5, 500_000)])
    assert text == "50.0 % in 500 kB: 47.2 points below the student before compression."


def test_a_missed_budget_is_part_of_the_sentence(minimal: Json) -> None:
    bounds = [{"name": "size_mb", "limit": limit, "value": 1.0, "met": met} for limit, met in ((0.5, False), (2, True))]
    minimal["budget"] = {"met": False, "model": "student-fp32", "engine": None, "bounds": bounds}
    assert sentence(minimal, [STUDENT]) == "97.2 % in 1.00 MB. Budget missed: size_mb."
    minimal["budget"]["met"], bounds[0]["met"] = True, True
    assert sentence(minimal, [STUDENT]) == "97.2 % in 1.00 MB."
