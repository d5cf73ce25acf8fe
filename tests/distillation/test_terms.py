"""Terms with their adapters, weights and warm-up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd import plugins
from edgekd.data.dataset import open_split
from edgekd.distillation.distill import networks_for, objective_over
from edgekd.distillation.methods.kd import kd
from edgekd.distillation.objective_settings import inherited
from edgekd.distillation.terms import Networks, Seen, build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.recipe.settings import AugmentSettings, ModelSettings, TermSettings, TrainSettings
from edgekd.training.train import TrainingSetup, train

STILL = AugmentSettings(crop="none", flip=False)


@pytest.fixture(scope="module")
def teacher(small_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    settings = TrainSettings(epochs=2, batch_size=64, precision="fp32")
    return train(ModelSettings(model="cifar/resnet14"), small_digits, TrainingSetup(settings, STILL), out)


def test_layers_that_cannot_be_compared_are_refused_with_their_shapes(teacher, small_digits):
    student = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    network = checkpoints.load(teacher)
    terms = [TermSettings(method="review", student_layers="classifier.0", teacher_layers="layer1")]
    with pytest.raises(UsageError, match=r"classifier\.0 \d+ of the student, layer1 16x16x16 of the teacher"):
        objective_over(student, network, small_digits, terms)
    terms = [TermSettings(method="fitnets", student_layers="featurs.4", teacher_layers="layer1")]
    with pytest.raises(UsageError, match=r"no module 'featurs\.4'(?s:.)*features\.4 \(\d+x\d+x\d+\)"):
        objective_over(student, network, small_digits, terms)


@pytest.mark.parametrize(
    "term",
    [
        {"method": "attention", "student_layers": "classifier.3@input", "teacher_layers": "linear@input"},
        {"method": "flow", "student_layers": ["classifier.3@input"] * 2, "teacher_layers": ["linear@input"] * 2},
        {"method": "similarity", "student_layers": "features", "teacher_layers": "nowhere"},
    ],
)
def test_what_would_fail_in_the_first_step_is_refused_before(term, teacher, small_digits):
    student = plugins.load("models", "torchvision").build("mobilenet_v3_small", num_classes=10, width_mult=0.25)
    with pytest.raises(UsageError):
        objective_over(student, checkpoints.load(teacher), small_digits, [TermSettings(**term)])


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


def test_a_term_warms_up_and_recovery_does_not():
    student, teacher = _net(1), _net(2)
    (term,) = objective = [TermSettings(method="kd", warmup_epochs=4.0)]
    terms = build_terms(objective, Networks(student, teacher, 4, 6, 10))
    logits = torch.randn(6, 5), torch.randn(6, 5)
    full = kd(*logits).item()
    for epoch, share in ((0.0, 0.0), (2.0, 0.5), (4.0, 1.0), (40.0, 1.0)):
        assert terms(Seen(*logits, epoch=epoch))["kd"].item() == pytest.approx(share * full)
    assert inherited([term])[0].warmup_epochs == 0.0


def test_weights_of_classes_come_from_the_training_images(small_digits):
    networks = networks_for(_net(1), None, small_digits)
    counts = np.bincount(open_split(small_digits, "train").labels, minlength=10)
    assert networks.class_counts == tuple(counts)
    (term,) = build_terms([TermSettings(method="cross_entropy", class_weights="auto")], networks).each
    logits, targets = torch.randn(8, 10), torch.arange(8)
    weights = torch.tensor(counts.sum() / (10 * counts), dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, targets, weights)
    assert term(Seen(logits, None, targets)).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("weights", "message"), [("auto", "every class"), ([1.0, 2.0], "another length\n  found: 2")])
def test_weights_that_do_not_fit_the_classes(weights, message):
    networks = Networks(_net(1), None, 4, 6, 5, (2, 2, 0, 1, 1))
    with pytest.raises(UsageError, match=message):
        build_terms([TermSettings(method="cross_entropy", class_weights=weights)], networks)


@pytest.mark.parametrize(
    ("term", "given"),
    [
        ({"method": "kd", "temperature": 1e200}, r"weight: 1\.0, temperature: 1e\+200"),
        ({"method": "nkd", "gamma": 1e200}, r"gamma: 1e\+200"),
        ({"method": "dkd", "weight": 1e9, "beta": 3e38}, r"weight: 1000000000\.0, beta: 3e\+38"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused_with_its_settings(term, given, monkeypatch):
    """The recipe refuses some of these by their size; a loss may fail with others."""
    method = plugins.load("method", term["method"])
    monkeypatch.setattr(type(method), "check", lambda self, term: None)
    monkeypatch.setattr(type(method), "parameters_of", lambda self, term: term.parameters)
    networks = Networks(_net(0), _net(1), (3, 4, 4), sample_count=4, class_count=5)
    with pytest.raises(UsageError, match=rf"the loss {term['method']} cannot be computed with .*{given}") as raised:
        build_terms([TermSettings(**term)], networks)
    assert raised.value.__cause__ is not raised.value
