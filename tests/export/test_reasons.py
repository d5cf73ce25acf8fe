from __future__ import annotations

import numpy as np
import pytest
from turns import given_turns

from edgekd.export import reasons
from edgekd.export.accuracy_budget import Accurate
from edgekd.export.fusion import Fusion
from edgekd.export.reasons import Candidates
from edgekd.runtime.statistics import packed

INT8 = "int8-asym"
BOTH = Accurate(frozenset(("fp32", INT8)), "the rule")
HOW = (
    "Medians of 15 rounds in turns, in onnxruntime 1.31.1 with 2 threads, 1 image in a call. May be the default: "
    "the rule"
)


def _found(int8: int = 898, *, fusion: Fusion | None = None, **converted: str) -> Candidates:
    right = {"fp32": 900, INT8: int8, "fp16": 900}
    rows = {
        name: {"accuracy": n / 1000, "samples": 1000, "correct": packed(np.arange(1000) < n)}
        for name, n in right.items()
    }
    sizes = {"fp32": 9_100_000, INT8: 2_700_000}
    return Candidates(rows, sizes, {INT8: fusion} if fusion is not None else {}, converted)


@pytest.mark.parametrize(
    ("time", "int8", "order", "why"),
    [
        (0.42, 898, (INT8, "fp32"), "wins: 1.9× faster than fp32 (0.420 against 0.800 ms), −0.2 points"),
        (
            0.88,
            898,
            ("fp32", INT8),
            "loses: 11 of 52 operators on quantized values are computed in float, 23 conversions, +0.080 ms against "
            "fp32 (0.880 against 0.800 ms), −0.2 points",
        ),
        (0.81, 901, (INT8, "fp32"), "wins: as fast as fp32 (0.810 against 0.800 ms), +0.1 points, which decides"),
        (
            0.81,
            900,
            (INT8, "fp32"),
            "wins: as fast as fp32 (0.810 against 0.800 ms), ±0.0 points, so that the size decides: 2.70 MB against "
            "9.10 MB",
        ),
    ],
)
def test_what_decides_is_said(time, int8, order, why):
    turns = given_turns({"fp32": 0.8, INT8: time})
    found = _found(int8, fusion=Fusion(41, 11, 23))
    default = "fp32 is the default; " if order[0] == "fp32" else ""
    assert reasons.measured(order, found, turns, BOTH) == f"{default}{INT8} {why}. {HOW}"


def test_a_slower_one_that_cannot_be_looked_at_has_its_ratio():
    turns = given_turns({"fp32": 0.8, INT8: 1.6})
    assert f"{INT8} loses: 2.0× slower than fp32 (1.60 against 0.800 ms)" in reasons.measured(
        ("fp32", INT8), _found(), turns, BOTH
    )


def test_speed_that_is_not_allowed_to_decide_is_named_so():
    turns = given_turns({"fp32": 0.8, INT8: 0.4})
    text = reasons.measured(("fp32", INT8), _found(850), turns, Accurate(frozenset(("fp32",)), "the rule"))
    assert text.startswith(
        f"fp32 is the default; {INT8} loses: 2.0× faster than fp32 (0.400 against 0.800 ms), −5.0 points, {INT8} may "
        "not be the default"
    )


def test_a_type_that_the_engine_converts_is_named_and_not_timed():
    turns = given_turns({"fp32": 0.8, INT8: 0.4, "fp16": 0.7})
    text = reasons.measured((INT8, "fp32", "fp16"), _found(fp16="fp32"), turns, BOTH)
    assert "; fp16 loses: the engine computes it as fp32 here. " in text


@pytest.mark.parametrize(
    ("fusion", "accurate", "text"),
    [
        (
            Fusion(50, 2, 4),
            True,
            "is first: 50 of 52 operators on quantized values are computed in int8, 4 conversions",
        ),
        (Fusion(50, 2, 4), False, "is not first: not the rule"),
        (
            Fusion(20, 32, 1),
            True,
            "is not first: 32 of 52 operators on quantized values are computed in float, 1 conversion, from which it "
            "is taken to be slower",
        ),
    ],
)
def test_what_was_not_measured_is_marked_so(fusion, accurate, text):
    order = (INT8, "fp32") if "is first" in text else ("fp32", INT8)
    allowed = BOTH if accurate else Accurate(frozenset(("fp32",)), "the rule")
    found = reasons.by_fusion(order, _found(fusion=fusion), allowed, 2 / 3)
    default = "fp32 is the default; " if order[0] == "fp32" else ""
    assert found == f"{default}{INT8} {text}. By what the engine makes of the graph, not measured"
