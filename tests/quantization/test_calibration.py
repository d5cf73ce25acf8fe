"""Ranges from histograms of the float network, and the choice between them by what is computed of the values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.quantization.calibration import AUTO, histograms, ranges
from edgekd.quantization.calibrators import METHODS
from edgekd.quantization.histogram import Histogram
from edgekd.quantization.placement import folded, place


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.stem(x)), inplace=True)
        x = F.max_pool2d(x + self.deep(x), 2)
        return self.head(x.flatten(1))


def _network(model: nn.Module):
    torch.manual_seed(0)
    return folded(model)


def _images() -> Tensor:
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    return _network(_Net())


@pytest.fixture(scope="module")
def placed(network) -> tuple[str, ...]:
    return place(_network(_Net())).placed


@pytest.mark.parametrize("method", [AUTO, *METHODS])
def test_the_order_and_size_of_batches_have_no_influence(network, placed, method):
    images = _images()
    orders = images.split(8), reversed(images.split(8)), images.flip(0).split(5)
    first, *others = (ranges(network, histograms(network, placed, each), method, images) for each in orders)
    assert first.keys() == set(placed)
    for other in others:
        # Layers may add up in another order in batches of another size.
        assert {name: each.amax for name, each in other.items()} == pytest.approx(
            {name: each.amax for name, each in first.items()}, rel=1e-5
        )


def test_values_are_those_of_the_float_network(network, placed):
    found = histograms(network, placed, [_images()])
    assert found["x"].largest == float(_images().abs().max())
    relu = F.relu6(network.stem(_images())).detach()
    name = next(name for name in placed if name.startswith("relu6"))
    assert found[name].largest == pytest.approx(float(relu.max()), rel=1e-6)
    assert found[name].lowest == 0.0 > found["deep"].lowest


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_asked_for_is_used_for_every_value(network, placed, method):
    found = histograms(network, placed, [_images()])
    for name, each in ranges(network, found, method, _images()).items():
        assert (each.method, each.amax) == (method, METHODS[method](found[name]))


class _Reads(nn.Module):
    """A linear layer that reads one of two columns, behind a reshape."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1, bias=False)
        self.head.weight = nn.Parameter(torch.eye(2)[column : column + 1])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


@pytest.mark.parametrize(("column", "chosen"), [(0, "percentile"), (1, "min-max")])
def test_auto_asks_what_the_next_layer_makes_of_the_values(column, chosen):
    """Column 0 is small, column 1 twenty times as large in one row of 5,000, beyond the percentile."""
    torch.manual_seed(0)
    rows = torch.rand(30_000, 2, 1, 1)
    rows[:, 1] *= 0.01
    rows[7, 1] = 20.0
    reads = _network(_Reads(column))
    found = {"x": Histogram("x")}
    found["x"].add(rows)
    scales = {name: method(found["x"]) for name, method in METHODS.items()}
    assert scales["percentile"] < 1.1 < scales["min-max"] == 20.0
    chosen_range = ranges(reads, found, AUTO, rows)["x"]
    errors = {name: _error(rows[:, column, 0, 0], amax) for name, amax in scales.items()}
    assert errors[chosen_range.method] == min(errors.values())
    assert errors[chosen] == min(errors.values())


def _error(values: Tensor, amax: float) -> float:
    scale = amax / 127
    return float(((values.double() / scale).round().clamp(-128, 127) * scale - values).square().mean())


def test_values_that_are_not_finite_are_refused_by_name(network, placed):
    with pytest.raises(ModelError, match="cannot be calibrated: x is nan"):
        histograms(network, placed, [_images() * float("nan")])
