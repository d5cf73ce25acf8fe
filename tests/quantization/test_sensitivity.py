"""The scan finds the one operation that int8 destroys."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.quantization.calibration import AUTO
from edgekd.quantization.placement import activation_quantizers
from edgekd.quantization.post_training import PostTraining, post_training, with_float
from edgekd.quantization.sensitivity import images_for, scan


class _Wide(nn.Module):
    """`mix` reads one channel that is 3,000 times as wide as the others, and the answers need all of them."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(inplace=True)
        self.register_buffer("scale", torch.tensor([3000.0, *[1.0] * 7]).reshape(1, 8, 1, 1))
        self.mix, self.swish = nn.Conv2d(8, 8, 1), nn.Hardswish(inplace=True)
        self.deep, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 5)
        with torch.no_grad():
            self.mix.weight[:, 0] /= 3000.0
            for layer in (self.stem, self.mix, self.deep, self.head):
                layer.bias.zero_()
                layer.weight *= 2.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.swish(self.mix(self.act(self.stem(x)) * self.scale))
        x += self.deep(F.relu(x, True))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(64, 3, 1, 1, generator=generator)
    return colours + 0.5 * torch.randn(64, 3, 12, 12, generator=generator)


@pytest.fixture(scope="module")
def made(images) -> PostTraining:
    torch.manual_seed(2)
    return post_training(_Wide().eval(), images, images.split(16), AUTO)


def _error(found: Tensor, expected: Tensor) -> float:
    change, spread = found - expected, expected - expected.mean(1, keepdim=True)
    return float((change - change.mean(1, keepdim=True)).square().sum() / spread.square().sum())


@torch.no_grad()
def test_the_operation_that_int8_destroys_is_found_and_no_other(made, images):
    answers = made.reference(images).argmax(1)
    done = []
    found = {
        each.name: each
        for each in scan(
            made.reference,
            made.quantized.model,
            images.split(16),
            lambda logits: logits.argmax(1) == answers,
            shown=lambda *each: done.append(each),
        )
    }
    assert tuple(found) == ("stem", "mul", "mix", "swish", "deep", "add", "mean", "head")
    assert done == [(0, 4), (1, 4), (2, 4), (3, 4)]
    worst = found.pop("mix")
    assert worst.error > 0.1 and worst.lost > 0.1
    assert all(each.error < 0.02 and each.lost < 0.1 for each in found.values())


@torch.no_grad()
def test_alone_in_int8_is_what_remains_if_all_others_are_kept(made, images):
    """Computed the long way: a network in which all others stay in float."""
    before = copy.deepcopy(made.reference.state_dict())
    found = scan(made.reference, made.quantized.model, images.split(16))
    names = [each.name for each in found]
    expected = made.reference(images).double()
    for each in found:
        network = with_float(made, [name for name in names if name != each.name]).model
        assert each.error == pytest.approx(_error(network(images).double(), expected), rel=0.02, abs=1e-6)
        assert each.lost is None
    assert all(torch.equal(value, before[name]) for name, value in made.reference.state_dict().items())


@torch.no_grad()
def test_with_it_in_float_the_network_answers_as_in_float(made, images):
    expected = made.reference(images)
    assert _error(made.quantized.model(images), expected) > 0.1
    kept = with_float(made, ["mix"])
    assert _error(kept.model(images), expected) < 0.02
    # What is kept has the bias that it had, all else what was calibrated.
    assert torch.equal(kept.model.mix.bias, made.reference.mix.bias)
    assert torch.equal(kept.model.deep.bias, made.quantized.model.deep.bias)
    scales = {path: float(each.amax) for path, each in activation_quantizers(made.quantized.model).items()}
    own = {path: float(each.amax) for path, each in activation_quantizers(kept.model).items()}
    assert own == {path: amax for path, amax in scales.items() if path != "quantizers.mul"}


def test_the_number_of_images_bounds_the_time():
    assert [images_for(count) for count in (0, 20, 64, 200, 5000)] == [128, 128, 64, 20, 16]
