from __future__ import annotations

from edgekd.report.cards import card
from edgekd.report.record import Stage


def test_a_card_is_its_stage_with_its_cost_in_words():
    made = card(Stage(name="prune", title="Pruning", state="reused", seconds=75.0, facts=("half kept",)))
    assert (made.title, made.facts, made.state) == ("Pruning", ("half kept",), "reused")
    assert made.cost.replace("\u00a0", " ") == "1 min 15 s"
