"""Fine-tuned teachers, how far their confidence can be trusted, and warnings about them."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd import schemes
from edgekd.distillation import teachers
from edgekd.distillation.teachers import (
    best_temperature,
    calibrate,
    entropy_share,
    expected_calibration_error,
    gap_warnings,
    not_top,
    suggest_temperature,
    teacher_warnings,
)
from edgekd.errors import ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint, NewClassifier
from edgekd.models.weights import new_head, read_state, save_state
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import AugmentSettings, ModelSettings, TeacherSettings, TermSettings, TrainSettings
from edgekd.runs import Run
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store
from edgekd.training.train import TrainingSetup, adopt, begin, train

KD = TermSettings(method="kd", temperature=4.0)
STEPS = {"epochs": 1, "batch_size": 128, "precision": "fp32"}


def _spread(size=4000, classes=5, scale=1.0):
    """Logits whose softmax is the truth about their labels, scaled."""
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return scale * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_calibration_error_by_hand():
    # Certainty 0.8 with 1 of 2 right, certainty 0.6 with 2 of 2: (2 · 0.3 + 2 · 0.4) / 4.
    logits = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]]).log()
    assert expected_calibration_error(logits, torch.tensor([0, 1, 0, 0])) == pytest.approx(0.35, abs=1e-6)


def test_the_temperature_undoes_a_scaling():
    base = best_temperature(*_spread())
    assert base == pytest.approx(1.0, abs=0.05)
    assert best_temperature(*_spread(scale=3.0)) == pytest.approx(3.0 * base, rel=1e-5)
    certain = calibrate(*_spread(scale=3.0))
    assert certain.nll > certain.nll_calibrated == pytest.approx(calibrate(*_spread()).nll_calibrated, rel=1e-9)
    assert certain.ece > 0.05 > calibrate(*_spread()).ece


def test_a_network_without_mistakes_has_no_known_temperature():
    targets = torch.arange(4)
    assert calibrate(10.0 * torch.eye(4), targets).temperature is None


def test_softness_by_hand_and_where_it_ends():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert not_top(logits) == pytest.approx(0.25)
    assert entropy_share(logits) == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    # Two classes 8 apart: exp(-8/T) / (1 + exp(-8/T)) = 0.01 at T = 8 / log 99.
    found = calibrate(torch.tensor([[8.0, 0.0]]), torch.tensor([1]))
    assert found.soft_from == pytest.approx(8.0 / math.log(99.0), rel=1e-6)
    assert entropy_share(torch.tensor([[8.0, 0.0]]), found.soft_to) == pytest.approx(0.97, abs=1e-6)
    assert suggest_temperature(calibrate(*_spread(scale=3.0)))[0] == pytest.approx(3.0, abs=0.15)


@pytest.fixture(scope="module")
def digits_net(small_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("net")
    still = AugmentSettings(crop="none", flip=False)
    return train(ModelSettings(model="cifar/resnet8"), small_digits, TrainingSetup(TrainSettings(**STEPS), still), out)


def _with(checkpoint, **metrics):
    both = {**checkpoint.metrics, **metrics}
    return Checkpoint(checkpoint.path, checkpoint.manifest.model_copy(update={"metrics": both}))


@pytest.mark.parametrize(
    ("temperature", "message"),
    [(1.0, "nearly one-hot"), (2.0, "overconfident"), (4.0, None), (30.0, "nearly uniform")],
)
def test_warnings_about_a_temperature(digits_net, temperature, message):
    measured = {"ece": 0.1, "nll": 1.0, "nll_calibrated": 0.5, "temperature": 3.0, "soft_from": 1.5, "soft_to": 20.0}
    teacher = _with(digits_net, calibration=measured)
    found = teacher_warnings(
        teacher, [KD.model_copy(update={"temperature": temperature}), TermSettings(method="cross_entropy")]
    )
    assert [message in warning and "3 to 20" in warning for warning in found] == ([True] if message else [])
    assert teacher_warnings(teacher, [TermSettings(method="kd", temperature=temperature, standardize=True)]) == []


@pytest.mark.parametrize(
    ("known", "advice"),
    [(3.0, "Useful temperatures: 3 to 20."), (40.0, "From 20 on they are nearly uniform, so none helps")],
)
def test_the_advice_names_a_range_or_that_there_is_none(digits_net, known, advice):
    measured = {"ece": 0.1, "nll": 1.0, "nll_calibrated": 0.5, "temperature": known, "soft_from": 1.5, "soft_to": 20.0}
    teacher = _with(digits_net, calibration=measured)
    (found,) = teacher_warnings(teacher, [KD.model_copy(update={"temperature": 1.0})])
    assert advice in found


def test_gap_warnings_beside_the_baseline(digits_net):
    small = _with(digits_net, validation_accuracy=0.7, macs=100, parameters=10)
    weak = _with(small, validation_accuracy=0.65)
    far = _with(small, validation_accuracy=0.9, macs=2000)
    (warning,) = gap_warnings(weak, small, assisted=False)
    assert "65.0%" in warning and "70.0%" in warning
    (warning,) = gap_warnings(far, small, assisted=False)
    assert "20 times the student's MACs" in warning and "name: assistant" in warning
    assert gap_warnings(far, small, assisted=True) == []
    for near in (_with(far, macs=1900), _with(far, validation_accuracy=0.84), small):
        assert gap_warnings(near, small, assisted=False) == []


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory):
    """The same network for 7 classes, as a state dict."""
    network = checkpoints.build(checkpoints.Architecture(model="cifar/resnet8", num_classes=7))
    path = tmp_path_factory.mktemp("seven") / "w.safetensors"
    save_state(network, path)
    return path


def test_fine_tuning_loads_all_but_the_classifier(other_classes, small_digits):
    settings = TeacherSettings(model="cifar/resnet8", checkpoint=other_classes, train=TrainSettings(**STEPS))
    begun, state = begin(settings, small_digits), read_state(other_classes)
    own = begun.network.state_dict()
    same = {name for name in state if own[name].shape == state[name].shape and torch.equal(own[name], state[name])}
    assert set(state) - same == {"linear.weight", "linear.bias"} and own["linear.weight"].std() > 0.0
    assert begun.warnings == ["The classifier (linear) was newly initialised: its 7 classes became 10."]


def test_fine_tuning_a_checkpoint_folder_of_other_classes_records_the_new_classifier(
    other_classes, digits_net, small_digits, tmp_path
):
    (tmp_path / "seven").mkdir()
    seven = checkpoints.save(
        checkpoints.build(checkpoints.Architecture(model="cifar/resnet8", num_classes=7)),
        checkpoints.Architecture(model="cifar/resnet8", num_classes=7),
        preprocessing=digits_net.details.preprocessing,
        classes=tuple("abcdefg"),
        out=tmp_path / "seven",
    )
    model = ModelSettings(model="cifar/resnet8", checkpoint=seven.path)
    (tmp_path / "ten").mkdir()
    still = AugmentSettings(crop="none", flip=False)
    ten = train(model, small_digits, TrainingSetup(TrainSettings(**STEPS), still), tmp_path / "ten")
    assert ten.metrics["warnings"] == ["The classifier (linear) was newly initialised: its 7 classes became 10."]
    assert ten.details.training.new_classifier == NewClassifier(layer="linear", classes_before=7)
    assert checkpoints.load(ten).linear.out_features == 10 and "calibration" not in ten.metrics
    for path in (seven.path, other_classes):
        with pytest.raises(ModelError, match=r"another number of classes(?s:.)*7 classes(?s:.)*teacher\.train"):
            adopt(model.model_copy(update={"checkpoint": path}), small_digits, tmp_path)
        with pytest.raises(ModelError, match=r"teacher\.train"):
            begin(TeacherSettings(model="cifar/resnet8", checkpoint=path), small_digits)


def test_any_other_misfit_stays_an_error(other_classes, small_digits, tmp_path):
    state = read_state(other_classes)
    network = begin(ModelSettings(model="cifar/resnet8"), small_digits).network
    assert new_head(network, state, 10) is not None and new_head(network, state, 7) is None
    wrong = [
        {**state, "linear.weight": torch.zeros(7, 99)},
        {**state, "linear.bias": torch.zeros(8)},
        {**state, "extra": torch.zeros(1)},
        {name: value for name, value in state.items() if name != "bn1.weight"},
        {**state, "conv1.weight": torch.zeros(8, 3, 3, 3)},
    ]
    for index, broken in enumerate(wrong):
        torch.save(broken, tmp_path / f"{index}.pth")
        with pytest.raises(ModelError, match=r"do not fit this network"):
            begin(ModelSettings(model="cifar/resnet8", checkpoint=tmp_path / f"{index}.pth"), small_digits)


@pytest.mark.parametrize("model", ["torchvision/resnet18", "timm/resnet18"])
def test_published_weights_of_other_classes(model, small_digits, monkeypatch):
    """The library's own loading, as if a network with 1000 classes were the published one."""
    source, _, name = model.partition("/")
    architecture = checkpoints.Architecture(model=model, num_classes=1000)
    published = checkpoints.build(architecture).state_dict()
    if source == "torchvision":
        from torchvision.models import ResNet18_Weights

        monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **_: published)
    else:
        from timm.models import _builder

        monkeypatch.setattr(_builder, "_resolve_pretrained_source", lambda _: ("state_dict", dict(published)))
    settings = TeacherSettings(model=model, pretrained=True, stem="standard", train=TrainSettings(**STEPS))
    begun = begin(settings, small_digits)
    assert begun.warnings == ["The classifier (fc) was newly initialised: its 1,000 classes became 10."]
    assert torch.equal(begun.network.state_dict()["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])
    with pytest.raises(ModelError, match=r"1,000 classes(?s:.)*teacher\.train"):
        begin(settings.model_copy(update={"train": None}), small_digits)


def test_a_chain_shows_its_warnings_before_the_student_is_trained(tmp_path, monkeypatch):
    shown = []

    class Console:
        def progress(self, *_):
            pass

        def warn(self, message):
            shown.append(message)

    recipe = from_mapping(
        {
            "name": "doubted",
            "data": {"source": "digits", "image_size": 16, "limit": 256, "augment": {"flip": False}},
            "teacher": {"model": "cifar/resnet8", "train": {**STEPS, "label_smoothing": 0.1, "learning_rate": 1e-6}},
            "student": {"model": "cifar/resnet8"},
            "distill": {**STEPS, "epochs": 3, "objective": [{"method": "kd", "temperature": 9000.0}]},
        }
    ).settings
    chain = Run(recipe, Store(tmp_path), Console())
    data = data_stage.data(chain)
    teacher, baseline = train_stage.teacher(chain, data), train_stage.baseline(chain, data)
    assert teacher is not None and set(teacher.metrics["calibration"]) == set(teachers.Calibration.__annotations__)
    assert baseline is not None and "calibration" not in baseline.metrics
    found = schemes.teacher_warnings(chain, teacher, baseline)
    assert list(found) == shown
    assert ["smoothing" in shown[0], "nearly uniform" in shown[1], "labels only" in shown[2]] == [True] * 3
    assert schemes.teacher_warnings(Run(recipe, Plan(tmp_path)), teacher, baseline) == ()
