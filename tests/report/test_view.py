from __future__ import annotations

from typing import Any

from edgekd.report.record import Stage, parse
from edgekd.report.view import view

Json = dict[str, Any]


def test_a_card_shows_what_its_stage_reports(record: Json) -> None:
    assert [card.facts for card in view(parse(record)).cards[:2]] == [("data made",), ("teacher made",)]


def test_a_file_without_a_latency_states_why(whole: Json) -> None:
    (note,) = view(parse(whole)).unmeasured
    assert note.startswith("– Not measured: Quantized without training, int8; Quantized, int8. int8 is the graph for")
    rows = {row.label: row for row in view(parse(whole)).models}
    assert "in the bundle" in rows["Quantized, int8"].note and "–" in rows["Quantized, int8"].cells
    assert rows["Teacher, fp32"].note == ""


def test_where_nothing_was_measured_no_file_is_singled_out(whole: Json) -> None:
    whole["measurements"] = []
    assert view(parse(whole)).unmeasured == ()


def test_the_marks_are_explained_for_the_roles_that_are_drawn(whole: Json, record: Json) -> None:
    def shown(shown: Json) -> list[str]:
        return [mark.shape for mark, _ in view(parse(shown)).legend]

    assert shown(record) == ["square", "diamond", "disc"]
    # The cross is for networks that are quantized without training, which are not measured here.
    assert shown(whole) == ["square", "diamond", "disc", "triangle-up", "star"]
    (place,) = view(parse(whole)).places
    assert "Quantized without training" not in place.scatter.wide and "Quantized, int8-asym" in place.scatter.wide


def test_networks_that_share_a_mark_are_explained_once(record: Json) -> None:
    record["roles"] = {**record["roles"], "assistant": record["roles"]["other"]}
    for role in ("other", "assistant"):
        record["models"].append({**record["models"][0], "id": role, "role": role})
        record["measurements"].append({**record["measurements"][0], "model": role})
    assert sum(mark.shape == "triangle-down" for mark, _ in view(parse(record)).legend) == 1


def test_every_stage_has_a_card(whole: Json) -> None:
    record = parse(whole)
    unknown = Stage(name="something-else", title="Else", state="run", seconds=1.0)
    cards = view(record.model_copy(update={"stages": (*record.stages, unknown)})).cards
    assert len(cards) == len(record.stages) + 1 and cards[-1].facts == ()


def test_the_budget_is_shown_with_the_models_names_where_the_recipe_has_one(whole: Json, record: Json) -> None:
    assert view(parse(record)).budget is None
    budget = view(parse(whole)).budget
    assert budget is not None and not budget.met and budget.headline.startswith("Budget missed by Pruned and recovered")
    assert [row.met for row in budget.rows] == [True, False, False]
    assert budget.rows[1].what == "loss of test accuracy against Teacher, fp32"
    text = "Quantized, int8-asym, in the same bundle, keeps to size_mb with 0.740\u00a0MB."
    assert text in budget.notes


def test_a_score_far_below_the_teacher_or_outside_the_budget_is_not_shown_as_a_success(
    whole: Json, record: Json
) -> None:
    assert view(parse(whole)).tiles[0].doubtful and not view(parse(record)).tiles[0].doubtful
    for model in record["models"]:
        if model["id"].startswith("student"):
            model |= {"accuracy": 0.2, "interval": [0.18, 0.22], "correct": ""}
    assert view(parse(record)).tiles[0].doubtful
