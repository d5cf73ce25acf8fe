from __future__ import annotations

from types import SimpleNamespace

from edgekd.stages._facts import network_facts


def test_a_network_reports_its_accuracy_where_it_was_measured_and_its_size():
    measured = SimpleNamespace(metrics={"validation_accuracy": 0.9125, "parameters": 1_528_106})
    assert network_facts(measured) == ["validation 91.25%", "1,528,106 parameters"]
    assert network_facts(SimpleNamespace(metrics={"parameters": 12})) == ["12 parameters"]


def test_an_accuracy_of_zero_is_reported_too():
    nothing_right = SimpleNamespace(metrics={"validation_accuracy": 0.0, "parameters": 1})
    assert network_facts(nothing_right)[0] == "validation 0.00%"
