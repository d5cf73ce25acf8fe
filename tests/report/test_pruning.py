"""The section states what was kept, by which rules, what it cost and what could not be narrowed."""

from __future__ import annotations

import pytest
from records import Json

from edgekd.report.pruning import pruning
from edgekd.report.record import parse


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_pruning_states_what_was_kept_and_what_was_wanted(whole: Json) -> None:
    record = parse(whole).pruning
    assert record is not None
    found = pruning(record)
    assert [tuple(map(spaced, row)) for row in found.rows] == [
        ("MACs", "56.5 M", "27.1 M", "48.0 %", "≤ 50.0 %"),
        ("Parameters", "1.53 M", "611 k", "40.0 %", "–"),
    ]
    assert found.summary == "58 of 60 layers have fewer channels, in multiples of 8."
    assert len(found.layers) == 60
    assert tuple(map(spaced, found.layers[2])) == ("features.2.block.0", "32", "16", "50.0 %")
    assert found.rules.startswith("Channels with the smallest weights in all layers that they run through went first; ")
    assert found.sensitivity is not None
    assert found.costs.startswith("Each part alone, before recovery: points of accuracy")
    assert [name for name, _ in found.whole] == ["features.60.attention"]


def test_a_measured_latency_stands_below_what_is_counted(whole: Json) -> None:
    measured = {"milliseconds": [4.0, 2.9], "ratios": [1.0, 0.72], "spread": [0.0, 0.02], "backend": "onnxruntime"}
    latency = {**measured, "rounds": 15, "device": "this-machine"}
    whole["pruning"] |= {"measure": "latency", "target": 0.75, "kept": 0.72, "latency": latency}
    record = parse(whole).pruning
    assert record is not None
    rows = [tuple(map(spaced, row)) for row in pruning(record).rows]
    assert rows[-1] == ("Latency in fp32, measured in turns (this-machine)", "4.00 ms", "2.90 ms", "72.0 %", "≤ 75.0 %")
    assert [row[-1] for row in rows[:-1]] == ["–", "–"]


@pytest.mark.parametrize("lost", [None, [0.0, 0.0, -0.01]])
def test_where_no_cut_costs_accuracy_or_labels_are_missing_the_answers_error_is_shown(whole: Json, lost) -> None:
    for curve in whole["pruning"]["sensitivity"]:
        curve["lost"] = lost
    record = parse(whole).pruning
    assert record is not None
    found = pruning(record)
    assert "error in the answers" in found.costs
    whole["pruning"]["sensitivity"] = []
    record = parse(whole).pruning
    assert record is not None
    assert pruning(record).sensitivity is None
