"""Learned step sizes: gradients against the paper's formulas, scales above 0, and what an optimiser makes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError
from edgekd.quantization.learned import LearnedActivationQuantizer
from edgekd.quantization.placement import freeze, insert, observe
from edgekd.quantization.quantizers import FINEST_INPUT, ActivationQuantizer, WeightQuantizer
from edgekd.recipe.settings import QuantizeSettings
from edgekd.training.optimiser import make_optimiser


def _by_hand(values: np.ndarray, scale: float, upstream: np.ndarray, sharing: int) -> tuple[float, np.ndarray]:
    """Equations 3 and 5 of Esser et al. for 8 bits with signs, and the factor of section 2.2."""
    steps = values / scale
    slope = np.where(steps <= -128, -128.0, np.where(steps >= 127, 127.0, np.rint(steps) - steps))
    passed = np.where((steps > -128) & (steps < 127), upstream, 0.0)
    return float((upstream * slope).sum() / np.sqrt(sharing * 127)), passed


def _activation(amax: float) -> LearnedActivationQuantizer:
    quantizer = LearnedActivationQuantizer("value")
    quantizer.calibrate(amax)
    return quantizer.train()


@pytest.mark.parametrize("amax", [0.5, 2.0, 9.0])
def test_gradients_of_an_activation_are_the_papers(amax):
    rng = np.random.default_rng(0)
    values, upstream = (rng.normal(size=(4, 3, 5, 5)) for _ in range(2))
    quantizer, inputs = _activation(amax), torch.from_numpy(values).float().requires_grad_()
    quantizer(inputs).backward(torch.from_numpy(upstream).float())
    scale = quantizer.scale.item()
    of_step, of_values = _by_hand(inputs.detach().double().numpy(), scale, upstream, 3 * 5 * 5)
    assert quantizer.step.grad.item() == pytest.approx(of_step, rel=1e-4)
    np.testing.assert_allclose(inputs.grad.numpy(), of_values, rtol=1e-6)


def test_they_begin_as_calibrated_and_compute_what_the_others_do():
    values = torch.randn(2, 3, 8, 8)
    plain = ActivationQuantizer("value")
    plain.calibrate(1.7)
    assert torch.equal(_activation(1.7)(values), plain.eval()(values))


def test_a_step_below_zero_counts_as_the_smallest_one_and_can_grow_again():
    quantizer = _activation(1.0)
    with torch.no_grad():
        quantizer.step.fill_(-0.5)
    assert 0 < quantizer.scale.item() < 1e-6
    values = torch.tensor([[1.0, 2.0]])
    (quantizer(values) - values).square().sum().backward()
    assert quantizer.step.grad.item() < 0  # a step against the gradient makes it larger


def test_the_room_that_a_bias_needs_is_nothing_that_steps_learn_from():
    layer, seen = nn.Linear(2, 2), _activation(0.127)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e-9, -1e-9], [0.127, 0.05]]))
        layer.bias.copy_(torch.tensor([-3.0, 3.0]))
    quantizer = WeightQuantizer()
    quantizer.fit_bias(layer, [seen])
    parametrize.register_parametrization(layer, "weight", quantizer)
    found = quantizer.scale(layer.parametrizations.weight.original)
    torch.testing.assert_close(found, torch.tensor([3.0 / (0.001 * FINEST_INPUT) / 2**30, 0.001]))
    layer.weight.backward(torch.randn(2, 2))
    assert seen.step.grad is None


def test_scales_have_no_weight_decay_and_stay_once_frozen():
    torch.manual_seed(0)
    network = insert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), learned=True).model
    inputs = torch.randn(8, 3, 8, 8)
    observe(network)
    network(inputs)
    optimiser = make_optimiser([network], QuantizeSettings(), 0.05)
    steps = [value for name, value in network.named_parameters() if name.endswith("step")]
    decays = {id(value): group["weight_decay"] for group in optimiser.param_groups for value in group["params"]}
    assert len(steps) == 2 and [decays[id(step)] for step in steps] == [0.0] * 2

    def moved() -> list[bool]:
        before = copy.deepcopy(steps)
        network.train()(inputs).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return [not torch.equal(old, new) for old, new in zip(before, steps, strict=True)]

    assert moved() == [True] * 2
    freeze(network)
    assert moved() == [False] * 2


def test_the_first_values_set_the_step_where_nothing_was_calibrated():
    quantizer = LearnedActivationQuantizer("features_0_0")
    with pytest.raises(ModelError, match="quantizer of features_0_0 has seen no values"):
        quantizer.freeze()
    for values in ([-4.0, 1.0], [9.0, 0.0]):
        quantizer.train()(torch.tensor([values]))
    assert quantizer.eval().scale.item() == pytest.approx(4.0 / 127)
