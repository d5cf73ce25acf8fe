from __future__ import annotations

from types import SimpleNamespace

from edgekd.report.result import Result, exported_networks
from edgekd.stages.distill import Distilled
from edgekd.stages.prune import Pruned
from edgekd.stages.quantize import Quantized

# Nothing looks into the artifacts: names stand for them.
PRUNED = Pruned("narrow", "recovered")


def result(**given) -> Result:
    networks = exported_networks("teacher", Distilled("student", {"assistant": "between"}), "baseline", PRUNED)
    rest = dict.fromkeys(("data", "final", "exported", "scores", "measured", "bundle"), SimpleNamespace())
    return Result(networks=networks, pruned=PRUNED, **rest, **given)


def test_networks_come_in_the_order_of_the_chain_and_the_last_one_ships():
    networks = exported_networks("teacher", Distilled("student", {"assistant": "between"}), "baseline", PRUNED)
    assert list(networks.values()) == ["teacher", "between", "baseline", "student", "recovered"]
    assert [role.name for role in networks] == ["teacher", "assistant", "baseline", "student", "pruned"]
    assert list(exported_networks(None, Distilled("student"), None, None).values()) == ["student"]


def test_a_scheme_may_title_its_further_networks():
    student = Distilled(
        "student", {"client1alone": "by itself", "assistant": "between"}, titles={"client1alone": "Alone"}
    )
    titles = [role.title for role in exported_networks(None, student, None, None)]
    assert titles == ["Alone", "Assistant", "Student, distilled"]


def test_a_quantized_network_is_compared_with_its_calibration_where_it_was_trained():
    assert [role.name for role in result(quantized=Quantized("int8", "trained")).roles][-2:] == ["ptq", "quantized"]
    assert [role.name for role in result(quantized=Quantized("int8", "int8")).roles][-2:] == ["pruned", "quantized"]


def test_what_is_not_exported_is_among_the_checkpoints():
    assert result().checkpoints == ["teacher", "between", "baseline", "student", "recovered", "narrow"]
