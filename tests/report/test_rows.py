from __future__ import annotations

from types import SimpleNamespace

from edgekd.report.rows import model_labels, span


def model(name: str, title: str, variant: str) -> SimpleNamespace:
    return SimpleNamespace(id=name, title=title, variant=variant)


def test_models_are_called_by_title_and_variant_and_distinguished_by_their_id():
    models = [
        *(model("a", "Student", "fp32"), model("b", "Student", "fp16"), model("c", "Student", "fp16")),
        model("d", "Quantized int8", "int8"),
    ]
    assert model_labels(models) == {
        "a": "Student, fp32",
        "b": "Student, fp16 (b)",
        "c": "Student, fp16 (c)",
        "d": "Quantized int8",
    }


def test_intervals_are_in_percent_with_a_real_minus():
    assert span(0.965, 0.979) == "96.5\u00a0to\u00a097.9"
    assert span(-0.015, 0.007, sign="+") == "−1.5\u00a0to\u00a0+0.7"
    assert span(-0.0001, 0.0, sign="+") == "0.0\u00a0to\u00a00.0", "neither has a sign"
