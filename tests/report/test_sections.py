"""The sections for pruning, quantization and TensorRT legality: what they say, and when they are there."""

from __future__ import annotations

import re
from typing import Any

from edgekd.report import sections
from edgekd.report.headline import chosen
from edgekd.report.html import render
from edgekd.report.record import parse
from edgekd.report.rows import model_labels

Json = dict[str, Any]


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


def precision(record: Json) -> sections.Precision:
    parsed = parse(record)
    found = sections.precision(parsed, model_labels(parsed.models))
    assert found is not None
    return found


def legality(record: Json) -> sections.Legality:
    parsed = parse(record)
    found = sections.legality(parsed.legality, model_labels(parsed.models))
    assert found is not None
    return found


def test_a_run_without_these_stages_has_none_of_their_sections(record: Json, whole: Json) -> None:
    names = [f'id="{name}"' for name in ("precision", "pruning", "legality")]
    assert all(name in render(whole) for name in names)
    assert not any(name in render(record) for name in names)


def test_the_variants_stand_side_by_side_with_ptq_beside_them(whole: Json) -> None:
    found = precision(whole)
    assert found.reference == "Pruned and recovered, fp32"
    assert [(row.label, row.note) for row in found.rows] == [
        ("Pruned and recovered, fp32", ""),
        ("Pruned and recovered, fp16", ""),
        ("Quantized without training, int8", "not in the bundle"),
        ("Quantized, int8", ""),
        ("Quantized, int8-asym", ""),
    ]
    accuracy, _, gap, size, p50, *_ = map(spaced, found.rows[3].cells)
    assert (accuracy, size, p50) == ("96.4 %", "742 kB", "–")
    # Both intervals are about ±0.8 points around 96.8 % and 96.4 %, so the difference's is ±1.1.
    assert gap == "−0.4 (−1.5 to +0.7)"
    assert found.rows[0].cells[2] == "–"


def test_each_engine_states_which_variant_it_takes_and_on_what_ground(whole: Json) -> None:
    found = precision(whole)
    assert found.engines == ("ONNX Runtime x86-64", "TensorRT", "OpenVINO", "ONNX Runtime, other machines")
    ranks = {row.label: row.cells[-4:] for row in found.rows}
    assert ranks["Quantized, int8-asym"] == ("1st", "–", "–", "–")
    assert ranks["Quantized, int8"] == ("–", "1st", "1st", "–")
    assert ranks["Pruned and recovered, fp16"] == ("3rd", "2nd", "3rd", "2nd")
    assert set(ranks["Quantized without training, int8"]) == {"–"}
    measured, by_rule, turns = map(spaced, found.orders)
    assert measured == "ONNX Runtime x86-64: int8-asym wins: 1.4× faster than fp32 (0.980 against 1.42 ms)."
    assert by_rule == "TensorRT, OpenVINO, ONNX Runtime, other machines: by rule, not measured."
    assert turns == (
        "Latencies in turns: fp32 1.42 ms, int8-asym 0.980 ms (0.69 ± 0.01 times fp32), fp16 1.61 ms (1.13 ± 0.01 "
        "times fp32). They hold for processors with the same instruction sets for int8: avx2, avx512_vnni (AMD EPYC)."
    )


def test_what_quantization_did_is_reported(whole: Json) -> None:
    facts = {name: spaced(value) for name, value in precision(whole).facts}
    assert facts["Left in float"] == "2 of 64 operations"
    assert facts["Lost by int8"].startswith("2.1 points of accuracy")
    assert facts["Calibrated on"] == "512 training images, calibration c0ffee123456"
    assert facts["Quantized values"].startswith("108 ")
    assert facts["QAD against PTQ"].startswith("+3.3 (")
    page = render(whole)
    assert "in int8 it alone changes the answers by 3.1 %" in page and "What int8 costs at each operation alone" in page


def test_quantization_without_training_compares_itself_with_nothing(whole: Json) -> None:
    whole["models"] = [m for m in whole["models"] if m["role"] != "ptq"]
    whole["quantization"]["mode"] = "ptq"
    facts = dict(precision(whole).facts)
    assert facts["Method"] == "calibration only (PTQ)"
    assert "QAD against PTQ" not in facts


def test_a_verdict_counts_its_errors_and_warnings(whole: Json) -> None:
    found = legality(whole)
    assert found.files == ("Pruned and recovered, fp32", "Quantized, int8")
    verdicts = {version.name: [(v.text, v.legal) for v in version.verdicts] for version in found.versions}
    assert verdicts["8.6"] == [("✗ refused, 1 error", False), ("✗ refused, 1 error, 20 warnings", False)]
    assert verdicts["11.4"] == [("✓ legal", True), ("✓ legal, 20 warnings", True)]
    assert [version.jetpack for version in found.versions] == ["JetPack 6.0", "JetPack 6.1, 6.2", "workstation"]


def test_equal_messages_are_shown_once_with_a_count(whole: Json) -> None:
    error, warning = legality(whole).messages
    assert (error.level, error.text, error.count) == (
        "error",
        "opset 20: the parser of TensorRT 8 stops at 17",
        "2 files",
    )
    assert error.where == "Pruned and recovered, fp32: 8.6; Quantized, int8: 8.6"
    assert (warning.level, warning.text, warning.count) == (
        "warning",
        "too few channels: stays in float",
        "20 operations",
    )
    assert warning.where == "Quantized, int8: 8.6, 10.3, 11.4"
    assert warning.nodes.startswith("conv_0 (Conv, 0 to 8 channels), conv_1") and warning.nodes.endswith("and 8 more")


def test_a_version_that_was_not_checked_for_a_file_is_not_called_legal(whole: Json) -> None:
    whole["legality"].pop()
    assert legality(whole).versions[2].verdicts[1].text == "not checked"


def test_what_was_not_run_is_in_plain_sight(whole: Json) -> None:
    page = re.sub(r"<details>.*?</details>", "", render(whole), flags=re.DOTALL)
    assert "<strong>TensorRT</strong>: no CUDA GPU on this machine" in page


def test_the_worst_classes_of_the_model_that_is_used_come_first(whole: Json) -> None:
    parsed = parse(whole)
    shown = chosen(parsed).id
    names = [f"class {number}" for number in range(20)]
    answers = {
        "balanced_accuracy": 0.9,
        "per_class": {
            name: {"accuracy": 1.0 - 0.01 * number, "interval": [0.7, 0.95], "samples": 1200}
            for number, name in enumerate(names)
        },
        "confused": [{"label": "class 19", "answer": "class <3>", "count": 1200}],
    }
    models = [{**model, **(answers if model["id"] == shown else {})} for model in whole["models"]]
    record = parse({**whole, "models": models})
    found = sections.classes(chosen(record), model_labels(record.models))
    assert spaced(found.mean) == "90.0 %"
    assert tuple(map(spaced, found.rows[0])) == ("class 19", "81.0 %", "70.0 to 95.0", "1,200")
    assert len(found.rows) == 12 and found.others == 8
    assert found.confusions == ("1,200 × class 19 taken for class <3>",)
    page = render({**whole, "models": models})
    assert 'id="classes"' in page and "taken for class &lt;3&gt;" in page


def test_a_report_of_an_earlier_version_has_no_classes(record: Json) -> None:
    parsed = parse(record)
    assert sections.classes(chosen(parsed), model_labels(parsed.models)) is None and 'id="classes"' not in render(
        record
    )
