from __future__ import annotations

from edgekd.export.model_id import ModelId, labelled


def test_a_row_gives_back_the_model_that_it_is_about():
    model = ModelId("student-b", "int8-asym")
    assert ModelId.of({**model.to_json(), "accuracy": 1.0}) == model
    assert model.to_json()["model"] == str(model) == "student-b-int8-asym"


def test_equal_labels_are_not_equal_models():
    """Which is why a label is never taken apart."""
    one, other = ModelId("a-b", "c"), ModelId("a", "b-c")
    assert str(one) == str(other) and one != other
    assert labelled({one: 1}) == {"a-b-c": 1}
