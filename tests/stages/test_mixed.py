"""Where one layer is ruined by int8, it alone stays in float; where none is, nothing is looked for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import onnxruntime
import pytest
import torch

from edgekd.data.dataset import Dataset
from edgekd.data.prepare import prepare
from edgekd.data.reader import open_reader
from edgekd.export import legality
from edgekd.export.variants import find
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.code import permitted
from edgekd.recipe.code import read
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import AugmentSettings, DataSettings, ExportSettings, ModelSettings, TrainSettings
from edgekd.runs import Run
from edgekd.runtime.statistics import Difference
from edgekd.stages.mixed import ALLOWED, BEFORE_TRAINING, STAGE, allowed_drop, kept_facts, sensitive_in_float
from edgekd.stages.quantize import calibrate, quantize
from edgekd.store.store import Store
from edgekd.training.train import TrainingSetup, train

# `mix` reads channels of very different ranges on one scale, and the answers need all of them.
NETS = """
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self, num_classes, wide):
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6()
        self.register_buffer("scale", wide ** torch.linspace(-2, 2, 16).reshape(1, 16, 1, 1))
        self.mix, self.mixed = nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24)
        self.deep, self.deeper = nn.Conv2d(24, 24, 3, 1, 1), nn.BatchNorm2d(24)
        self.head = nn.Linear(24, num_classes)
        with torch.no_grad():
            self.mix.weight /= self.scale

    def forward(self, x):
        x = self.act(self.norm(self.stem(x))) * self.scale
        x = self.act(self.mixed(self.mix(x)))
        return self.head(self.act(self.deeper(self.deep(x))).mean((2, 3)))

def build(num_classes, wide=30.0):
    return Wide(num_classes, wide)
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Dataset:
    """With enough validation images that a large drop is certain."""
    settings = DataSettings(source="digits", image_size=16, limit=900, test=0.1, validation=0.3)
    return prepare(settings, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    file = tmp_path_factory.mktemp("nets") / "nets.py"
    file.write_text(NETS)
    with permitted([read(file)]):
        yield file


def _trained(nets, wide, digits, out) -> Checkpoint:
    settings = TrainSettings(epochs=30, batch_size=32, learning_rate=0.02, optimizer="adamw")
    model = ModelSettings(model=f"{nets}:build", arguments={"wide": wide})
    return train(model, digits, TrainingSetup(settings, AugmentSettings(crop="none", flip=False)), out)


@pytest.fixture(scope="module")
def student(nets, digits, tmp_path_factory) -> Checkpoint:
    return _trained(nets, 30.0, digits, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def calibrated(student, digits, tmp_path_factory) -> Checkpoint:
    return calibrate(student, digits, 64, tmp_path_factory.mktemp("calibrated"))


def _run(folder, nets, **sections) -> Run:
    recipe = from_mapping(
        {
            "name": "t",
            "data": {"source": "digits"},
            "student": {"model": f"{nets}:build", "checkpoint": str(nets.parent)},
            "distill": {"scheme": "none"},
            "quantize": {"mode": "ptq", "calibration_images": 64},
            **sections,
        },
        allow_code=True,
    )
    return Run(recipe.settings, Store(folder))


@pytest.fixture(scope="module")
def found(nets, student, calibrated, digits, tmp_path_factory) -> Checkpoint:
    return sensitive_in_float(_run(tmp_path_factory.mktemp("run"), nets), student, calibrated, digits)


def test_the_layer_that_int8_ruins_stays_in_float_and_no_other(student, calibrated, found):
    accuracy = [each.metrics["validation_accuracy"] for each in (student, calibrated, found)]
    assert accuracy[0] > 0.7 and accuracy[1] < accuracy[0] - 0.1 and accuracy[2] >= accuracy[0] - ALLOWED
    assert list(found.metrics["left_in_float"]) == ["mix"] and found.metrics["operations"] == 6
    assert found.metrics["left_in_float"]["mix"].startswith("in int8 it alone changes the answers by ")
    mixed = found.metrics["mixed"]
    assert mixed["met"] and mixed["kept"] == ["mix"] and mixed["allowed"] == ALLOWED
    assert mixed["before"]["low"] > 0.0 and mixed["after"]["value"] <= ALLOWED
    assert mixed["before"]["value"] == pytest.approx(accuracy[0] - accuracy[1])
    assert max(mixed["sensitivity"], key=lambda each: each["error"])["name"] == "mix"
    assert mixed["latency"]["rounds"] > 0 and len(mixed["latency"]["ratios"]) == 2
    assert found.metrics["warnings"] == []
    facts = STAGE.facts(found)
    assert facts[0] == "1 of 6 operations stays in float: mix" and facts[-1].startswith("validation ")
    assert kept_facts(calibrated) == []
    assert facts[1].startswith("int8 loses ") and ", with these in float it " in facts[1]


def test_it_is_rebuilt_exported_and_answers_the_same(found, digits, tmp_path):
    network = checkpoints.load(Checkpoint.load(found.path))
    reader = open_reader(digits, "validation")
    images = reader.inputs(reader.first(24))
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    folders = {name: tmp_path / name for name in ("int8", "int8-asym")}
    for folder in folders.values():
        folder.mkdir()
    settings = ExportSettings()
    signed = find("int8").export(found, digits, settings, folders["int8"])
    unsigned = find("int8-asym").export(signed, digits, settings, folders["int8-asym"])
    for version in legality.VERSIONS:
        assert legality.check(legality.read(signed.graph), version).legal
    for model in (signed, unsigned):
        session = onnxruntime.InferenceSession(str(model.graph), providers=["CPUExecutionProvider"])
        answers = session.run(None, {"input": images})[0]
        assert (answers.argmax(1) == expected.argmax(1)).mean() > 0.95


@pytest.mark.slow
def test_a_second_run_looks_for_nothing_again(nets, student, calibrated, digits, tmp_path, monkeypatch):
    run = _run(tmp_path, nets)
    first = sensitive_in_float(run, student, calibrated, digits)
    monkeypatch.setattr("edgekd.stages.mixed.scan", None)
    assert sensitive_in_float(run, student, calibrated, digits).digest == first.digest


@pytest.mark.parametrize(
    "sections",
    [
        {"budget": {"accuracy_drop": 0.9}},
        {"quantize": {"mode": "ptq", "keep_float": []}},
        {"quantize": {"mode": "ptq", "keep_float": ["deep"]}},
    ],
)
def test_nothing_is_looked_for_where_int8_may_lose_so_much_or_the_recipe_decides(
    nets, student, calibrated, digits, tmp_path, sections
):
    run = _run(tmp_path, nets, **sections)
    assert sensitive_in_float(run, student, calibrated, digits) is calibrated
    assert not list(tmp_path.glob("stages/*"))


def test_a_network_without_such_a_layer_costs_nothing(nets, digits, tmp_path):
    for name in ("student", "calibrated"):
        (tmp_path / name).mkdir()
    student = _trained(nets, 1.0, digits, tmp_path / "student")
    made = calibrate(student, digits, 64, tmp_path / "calibrated")
    run = _run(tmp_path / "run", nets, budget={"accuracy_drop": 0.05})
    assert sensitive_in_float(run, student, made, digits) is made
    assert made.metrics["left_in_float"] == {} and "mixed" not in made.metrics


def test_a_drop_that_may_be_chance_keeps_nothing(nets, student, calibrated, digits, tmp_path, monkeypatch):
    """Of 25 images one is 4 points."""
    lost = Difference(0.04, -0.04, 0.13)
    monkeypatch.setattr("edgekd.stages.mixed.Judge.lost", lambda self, network: lost)
    found = sensitive_in_float(_run(tmp_path, nets), student, calibrated, digits)
    assert found.metrics["mixed"]["kept"] == [] and found.metrics["left_in_float"] == {}
    assert STAGE.facts(found)[0] == "none has to stay in float" and found.metrics["warnings"] == []


def test_a_bound_that_no_set_meets_is_said_with_the_nearest(nets, student, calibrated, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.stages.mixed.MOST", 0.0)
    found = sensitive_in_float(_run(tmp_path, nets), student, calibrated, digits)
    (warning,) = found.metrics["warnings"]
    assert "int8 loses more than the 0.5 points that are allowed" in warning and "fp32 is the better file" in warning
    assert not found.metrics["mixed"]["met"]


def test_what_int8_may_lose(nets, digits, tmp_path):
    def allowed(**sections):
        return allowed_drop(_run(tmp_path, nets, **sections).recipe, digits)

    assert allowed() == ALLOWED
    assert allowed(budget={"size_mb": 4}) == ALLOWED
    assert allowed(budget={"accuracy_drop": 0.02}) == 0.02
    assert allowed(quantize={"mode": "qad"}) == ALLOWED * BEFORE_TRAINING
    taught = {"teacher": {"model": "cifar/resnet8", "train": {}}, "distill": {}}
    assert allowed(**taught, budget={"accuracy_drop": 0.02}) == ALLOWED
    assert allowed(**taught, budget={"accuracy_drop": 0.001}) == 0.001


def test_what_the_recipe_names_stays_in_float(student, digits, tmp_path):
    made = calibrate(student, digits, 64, tmp_path, keep=["mix", "he*"])
    assert made.metrics["left_in_float"] == dict.fromkeys(["mix", "head"], "asked for by quantize.keep_float")
    assert made.metrics["warnings"] == [] and kept_facts(made)[0].startswith(
        "2 of 6 operations stay in float: mix, head"
    )
    network = checkpoints.load(made)
    assert not hasattr(network.mix, "parametrizations") and hasattr(network.deep, "parametrizations")


@pytest.mark.parametrize(("keep", "warned"), [([], True), ("auto", False)])
def test_a_loss_that_nothing_mends_is_warned_of_before_the_export(nets, student, digits, tmp_path, keep, warned):
    shown: list[str] = []

    class Console:
        def progress(self, stage: str, done: int, total: int, note: str) -> None:
            pass

        def warn(self, message: str) -> None:
            shown.append(message)

    settings = {"mode": "ptq", "calibration_images": 64, "keep_float": keep}
    run = replace(_run(tmp_path, nets, quantize=settings), console=Console())
    assert quantize(run, student, SimpleNamespace(data=digits)) is not None
    found = [each for each in shown if each.startswith("Calibration for int8 cost")]
    assert len(found) == warned and all("quantize.keep_float: auto" in each for each in found)
