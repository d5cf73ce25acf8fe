"""PrunedNetwork networks run, meet their target, keep their multiples, and keep the channels that matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.pruning.channels import check_reachable, prune_channels
from edgekd.runtime.preprocess import InputShape

FAMILIES = [
    ("torchvision/mobilenet_v2", {"width_mult": 0.5}),
    ("torchvision/mobilenet_v3_small", {}),
    ("torchvision/mobilenet_v3_large", {"width_mult": 0.5}),
    ("torchvision/mnasnet0_5", {}),
    ("torchvision/squeezenet1_1", {}),
    ("torchvision/resnet18", {}),
]


def _build(model: str, arguments: dict) -> nn.Module:
    torch.manual_seed(0)
    return build(Architecture(model=model, arguments=arguments, num_classes=10)).eval()


@pytest.mark.parametrize(("model", "arguments"), FAMILIES)
def test_every_family_meets_its_target_in_multiples(model, arguments):
    network = _build(model, arguments)
    before = cost(network, InputShape(3, 64, 64))
    found = prune_channels(network, measure="macs", target=0.5, multiple=8, shape=InputShape(3, 64, 64))
    assert 0.3 < found.kept <= 0.5
    assert cost(found.model, InputShape(3, 64, 64))["macs"] == pytest.approx(found.kept * before["macs"])
    changed = [width for width in found.widths if width.after != width.before]
    assert changed and all(width.after % 8 == 0 and width.after < width.before for width in changed)
    assert found.model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
    # The network that was passed is as it was.
    assert cost(network, InputShape(3, 64, 64)) == before


def test_parameters_are_a_target_of_their_own():
    network = _build("torchvision/resnet18", {})
    shown = []
    found = prune_channels(
        network,
        measure="parameters",
        target=0.3,
        multiple=16,
        shape=InputShape(3, 32, 32),
        shown=lambda done, total: shown.append((done, total)),
    )
    assert shown == [(tried, 8) for tried in range(1, 8)]  # after the smallest one, seven halvings
    assert 0.2 < found.kept <= 0.3
    assert cost(found.model, InputShape(3, 32, 32))["parameters"] == pytest.approx(
        found.kept * cost(network, InputShape(3, 32, 32))["parameters"]
    )
    assert all(width.after % 16 == 0 for width in found.widths if width.after != width.before)


def test_the_channels_that_go_are_those_with_the_smallest_weights():
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    strong = torch.arange(16) % 2 == 1
    with torch.no_grad():
        network[0].weight.copy_(torch.where(strong, 2.0, 0.1)[:, None, None, None])
        network[0].bias.zero_()
        network[4].weight.copy_(torch.where(strong, 2.0, 0.1)[None, :])
    found = prune_channels(network, measure="macs", target=0.6, multiple=8, shape=InputShape(3, 8, 8))
    assert found.history == [("0", True, list(range(0, 16, 2)))]
    torch.testing.assert_close(found.model[0].weight, network[0].weight[strong])


def test_a_target_out_of_reach_states_what_is_in_reach():
    network = _build("torchvision/mobilenet_v3_small", {"width_mult": 0.25})
    with pytest.raises(ModelError, match="target 0.05 of the macs is out of reach") as caught:
        prune_channels(network, measure="macs", target=0.05, multiple=8, shape=InputShape(3, 32, 32))
    lowest = check_reachable(network, measure="macs", target=0.99, multiple=8, shape=InputShape(3, 32, 32)).kept
    assert caught.value.allowed == f"{lowest:.3f} to 1"
    prune_channels(network, measure="macs", target=lowest + 1e-6, multiple=8, shape=InputShape(3, 32, 32))


@pytest.mark.parametrize("model", ["torchvision/shufflenet_v2_x0_5", "cifar/resnet20"])
def test_what_cannot_be_pruned_is_refused_by_name(model):
    network = _build(model, {})
    with pytest.raises(ModelError, match=f"{type(network).__name__} cannot be pruned"):
        prune_channels(network, measure="macs", target=0.5, multiple=8, shape=InputShape(3, 32, 32))
