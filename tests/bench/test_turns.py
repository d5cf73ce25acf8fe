from __future__ import annotations

import pytest
from pydantic import ValidationError
from turns import given_turns

from edgekd.bench.turns import take_turns
from edgekd.runtime import processor
from edgekd.runtime.cores import usable_cores


def test_a_ratio_is_that_of_two_variants_with_both_spreads():
    turns = given_turns({"fp32": 2.0, "int8-asym": 1.0, "fp16": 4.0}, spread=0.1)
    assert turns.reference == "fp32" and turns.time("fp16") == 4.0 and turns.share("int8-asym") == 0.5
    assert turns.ratio("int8-asym", "fp32") == pytest.approx((0.5, 0.1))
    # 2.0 / 0.5 = 4, of which 0.1 / 0.5 = 20 % and 0.1 / 2.0 = 5 % are uncertain: 4 * 0.2062.
    assert turns.ratio("fp16", "int8-asym") == pytest.approx((4.0, 0.8246), rel=1e-3)


@pytest.mark.parametrize(
    ("time", "spread", "same"), [(0.96, 0.0, True), (1.04, 0.0, True), (0.94, 0.01, False), (0.8, 0.25, True)]
)
def test_latencies_within_five_percent_or_within_their_spread_are_equal(time, spread, same):
    turns = given_turns({"fp32": 1.0, "int8-asym": time}, spread=spread)
    assert turns.as_fast("int8-asym", "fp32") == turns.as_fast("fp32", "int8-asym") == same


@pytest.mark.parametrize("changes", [{"variants": ("fp32", "fp32")}, {"spread": (0.0,)}, {"milliseconds": (1.0, -1.0)}])
def test_figures_that_do_not_belong_to_the_variants_are_refused(changes):
    with pytest.raises(ValidationError):
        given_turns({"fp32": 1.0, "int8-asym": 0.5}, **changes)


def test_variants_take_turns_on_this_machine(small_net):
    found = take_turns(
        {"fp32": small_net, "fp16": small_net}, backend="onnxruntime", engine="x 1", batch_size=2, seconds=0.005
    )
    assert found.variants == ("fp32", "fp16") and found.ratios[0] == 1.0
    assert (found.backend, found.engine, found.batch_size, found.rounds) == ("onnxruntime", "x 1", 2, 15)
    assert found.threads == usable_cores()
    assert (found.cpu, found.instruction_sets) == (processor.name(), processor.instruction_sets())
