from __future__ import annotations

import platform
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd import plugins
from edgekd.bench.measure import benchmark
from edgekd.errors import BenchError, UsageError
from edgekd.export.model_id import ModelId
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import BenchSettings
from edgekd.stages import benchmark as module
from edgekd.stages.benchmark import STAGE, at_hand, measure_models


def test_only_devices_that_are_here_are_measured_on():
    assert at_hand(BenchSettings(devices=("jetson-nano-4gb", "this-machine"))) == ["this-machine"]


def test_one_record_per_model_and_batch_size_and_the_models_digests(exported, tmp_path):
    models = {ModelId("student", variant): model for variant, model in exported[1].items()}
    settings = BenchSettings(batch_sizes=(1, 2), seconds=0.02, warmup_seconds=0.0)
    reported = []
    made = measure_models(models, settings, tmp_path, progress=lambda *given: reported.append(given))
    rows = [(ModelId.of(row), row["batch_size"], row["provenance"]) for row in made.records]
    assert rows == [(model, size, "measured") for model in models for size in (1, 2)]
    assert made.details.models == {str(name): model.digest for name, model in models.items()}
    assert reported == [(0, 2, "student-fp32, ONNX Runtime"), (1, 2, "student-fp16, ONNX Runtime")]


def test_the_variants_that_ship_are_compared_in_turns(exported, tmp_path):
    models = {ModelId("student", variant): model for variant, model in exported[1].items()}
    models[ModelId("teacher", "fp32")] = exported[1]["fp32"]
    shipped = {variant: ModelId("student", variant) for variant in ("fp16", "fp32")}
    settings = BenchSettings(batch_sizes=(4, 2), threads=1, seconds=0.005, warmup_seconds=0.0)
    made = measure_models(models, settings, tmp_path, shipped=shipped)
    (turns,) = made.turns
    assert turns.variants == ("fp32", "fp16") and turns.ratios[0] == 1.0
    assert (turns.backend, turns.batch_size, turns.threads) == ("onnxruntime", 2, 1)
    assert turns.engine == made.records[0]["engine"] and turns.cpu == made.records[0]["environment"]["cpu"]


def test_one_variant_alone_is_compared_with_nothing(exported, tmp_path):
    student = ModelId("student", "fp32")
    settings = BenchSettings(batch_sizes=(1,), seconds=0.01, warmup_seconds=0.0)
    assert measure_models({student: exported[1]["fp32"]}, settings, tmp_path, shipped={"fp32": student}).turns == ()


CRASHING = """
from dataclasses import replace
from edgekd.runtime.backends.onnxruntime import BACKEND, OrtSession

class Crashing(OrtSession):
    def bind(self, array):
        raise RuntimeError("no such kernel")

BACKEND = replace(BACKEND, title="Crashing", open=Crashing)
"""


def test_a_backend_from_outside_that_fails_is_left_out_with_a_warning(exported, tmp_path, monkeypatch):
    (tmp_path / "plugins" / "backends").mkdir(parents=True)
    (tmp_path / "plugins" / "backends" / "crashing.py").write_text(CRASHING)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "plugins"))
    (tmp_path / "out").mkdir()
    settings = BenchSettings(batch_sizes=(1,), seconds=0.02, warmup_seconds=0.0)
    made = measure_models({ModelId("student", "fp32"): exported[1]["fp32"]}, settings, tmp_path / "out")
    assert {record["backend"] for record in made.records} == {"onnxruntime"}
    warnings = [each for each in made.metrics["warnings"] if "busy" not in each]
    assert len(warnings) == 1 and warnings[0].startswith("Crashing was not measured: ")
    assert "no such kernel" in warnings[0]


def test_subnormal_weights_are_a_warning_of_the_run(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy")
    weight = numpy_helper.from_array(np.full((64, 64), 1e-40, np.float32), "fc.weight")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "fc.weight"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    exported = SimpleNamespace(graph=tmp_path / "model.onnx", digest="0" * 64)
    (tmp_path / "out").mkdir()
    settings = BenchSettings(batch_sizes=(1, 2), seconds=0.02, warmup_seconds=0.0)
    made = measure_models({ModelId("student", "fp32"): exported}, settings, tmp_path / "out")
    (warning,) = [each for each in made.metrics["warnings"] if "subnormal" in each]
    assert warning.startswith("student-fp32 has subnormal weights (4,096 of 4,096 in fc.weight)")


def test_a_budget_of_latency_for_a_variant_that_is_not_measured_here_is_refused(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    recipe = {
        "name": "x",
        "data": {"source": "digits"},
        "teacher": {"model": "cifar/resnet8", "train": {}},
        "student": {"model": "cifar/resnet8"},
        "quantize": {},
    }
    budgets = ({"latency_ms": 5}, {"latency_ms": 5, "variant": "int8-asym"}, {"size_mb": 5, "variant": "int8"})
    for budget in budgets:
        STAGE.check_machine(from_mapping({**recipe, "budget": budget}).settings)
    with pytest.raises(UsageError, match=r"budget.latency_ms cannot be judged(?s:.)*found: int8\n") as raised:
        STAGE.check_machine(from_mapping({**recipe, "budget": {"latency_ms": 5, "variant": "int8"}}).settings)
    assert "allowed: fp32, fp16, int8-asym" in str(raised.value)


def test_latencies_of_an_emulated_processor_are_marked_and_judge_no_budget(exported, tmp_path, monkeypatch):
    records = [record.model_copy(update={"provenance": "emulated"}) for record in _measured(exported[1]["fp32"].graph)]
    environment = records[0].environment.model_copy(update={"emulated": "a sign"})
    records = [record.model_copy(update={"environment": environment}) for record in records]
    monkeypatch.setattr(module, "benchmark", lambda *given, **options: records)
    models = {ModelId("student", variant): model for variant, model in exported[1].items()}
    shipped = {name.variant: name for name in models}
    made = measure_models(models, BenchSettings(), tmp_path, shipped=shipped)
    assert made.turns == ()
    assert {record["provenance"] for record in made.records} == {"emulated"}
    assert [each for each in made.metrics["warnings"] if each.startswith("The processor is emulated: a sign.")]
    monkeypatch.setattr("edgekd.bench.environment.emulation", lambda *root: "a sign")
    recipe = {"name": "x", "data": {"source": "digits"}, "teacher": {"model": "cifar/resnet8", "train": {}}}
    recipe |= {"student": {"model": "cifar/resnet8"}}
    STAGE.check_machine(from_mapping(recipe).settings)
    with pytest.raises(BenchError, match="budget.latency_ms needs a latency"):
        STAGE.check_machine(from_mapping({**recipe, "budget": {"latency_ms": 5}}).settings)


def test_a_batch_that_does_not_fit_is_not_measured_and_the_others_are(exported, tmp_path):
    settings = BenchSettings(batch_sizes=(10**9, 2, 1), seconds=0.02, warmup_seconds=0.0)
    made = measure_models({ModelId("student", "fp32"): exported[1]["fp32"]}, settings, tmp_path)
    assert [record["batch_size"] for record in made.records] == [1, 2]
    (warning,) = [each for each in made.metrics["warnings"] if "not measured" in each]
    assert warning.startswith("ONNX Runtime was not measured with a batch of 1,000,000,000: ")
    (tmp_path / "alone").mkdir()
    alone = BenchSettings(batch_sizes=(10**9,), seconds=0.02, warmup_seconds=0.0)
    with pytest.raises(BenchError, match="memory"):
        measure_models({ModelId("student", "fp32"): exported[1]["fp32"]}, alone, tmp_path / "alone")


def _measured(graph):
    return benchmark(graph, seconds=0.02, warmup_seconds=0.0)
