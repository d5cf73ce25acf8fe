"""Pruned networks run, meet their target, keep their multiples, and compute what is left of the full one."""

from __future__ import annotations

import copy

import pytest
import torch
from pruned import prune
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.cost import cost
from edgekd.pruning.channels import Channels
from edgekd.pruning.flow import CONSTANT, trace
from edgekd.pruning.importance import group_norm
from edgekd.pruning.matching import match
from edgekd.pruning.meters import Counted
from edgekd.pruning.search import PrunedNetwork, narrowest
from edgekd.runtime.preprocess import InputShape

SHAPE = InputShape(3, 64, 64)
# Also with what they keep at half of their MACs, to the width's multiple of 8.
FAMILIES = [
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
    "torchvision/squeezenet1_1",
    "torchvision/regnet_y_400mf",
    "torchvision/resnet18",
    "cifar/resnet20",
    "timm/ghostnet_050",
    "timm/mobilenetv4_conv_small_050",
    "timm/repghostnet_050",
]
MORE = [
    "torchvision/mobilenet_v3_large",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/shufflenet_v2_x1_5",
    "torchvision/shufflenet_v2_x2_0",
    "torchvision/efficientnet_b0",
    "torchvision/resnet50",
    "torchvision/densenet121",
    "cifar/resnet32x4",
    "cifar/resnet9",
    "timm/ghostnet_100",
    "timm/mobilenetv4_conv_small",
    "timm/mobileone_s0",
    "timm/repvgg_a0",
    "timm/fastvit_t8",
    "timm/lcnet_050",
    "timm/tf_mobilenetv3_small_100",
    "timm/efficientnet_lite0",
]


def _build(model: str, arguments: dict | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = build(Architecture(model=model, arguments=arguments or {}, num_classes=10)).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1.0, 0.2), nn.init.normal_(norm.bias, 0.0, 0.2)
            norm.running_mean.normal_(0.0, 0.1), norm.running_var.uniform_(0.5, 1.5)
    return network


def _silenced(network: nn.Module, pruned: PrunedNetwork, shape: InputShape) -> nn.Module:
    """The full network, the channels that were removed set to zero where they begin."""
    full, narrow = trace(network, shape), trace(pruned.model, shape)
    stay = {*match(full, narrow, group_norm(network, full)).values(), CONSTANT}
    silenced = copy.deepcopy(network)
    tensors = {**dict(silenced.named_parameters()), **dict(silenced.named_buffers())}
    with torch.no_grad():
        for site, labels in full.sites.items():
            if site.dim == 0:
                tensors[site.tensor][torch.tensor([label not in stay for label in labels.tolist()])] = 0.0
    return silenced


def _check(model: str) -> None:
    network = _build(model)
    before = cost(network, SHAPE)
    found = prune(network, 0.5, SHAPE)
    assert 0.3 < found.kept <= 0.5
    assert cost(found.model, SHAPE)["macs"] == pytest.approx(found.kept * before["macs"])
    changed = [width for width in found.widths if width.after != width.before]
    assert changed and all(width.after % 8 == 0 and width.after < width.before for width in changed)
    # The network that was passed is as it was.
    assert cost(network, SHAPE) == before
    # Nothing was mixed up: what remains computes what the full network does without the others.
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        expected, answers = _silenced(network, found, SHAPE)(images), found.model(images)
    torch.testing.assert_close(answers, expected, rtol=0.0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("model", FAMILIES)
def test_every_family_is_pruned_to_half_exactly(model):
    _check(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", MORE)
def test_further_families_are_pruned_to_half_exactly(model):
    _check(model)


def test_parameters_are_a_target_of_their_own():
    network = _build("torchvision/resnet18")
    shown = []
    found = prune(
        network,
        0.3,
        InputShape(3, 32, 32),
        multiple=16,
        meter=Counted("parameters"),
        shown=lambda done, total: shown.append((done, total)),
    )
    assert shown == [(tried, 8) for tried in range(8)]  # the smallest one, then seven halvings
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
    found = prune(network, 0.6, InputShape(3, 8, 8))
    assert found.shapes == {"0.weight": (8, 3, 1, 1), "0.bias": (8,), "4.weight": (10, 8)}
    torch.testing.assert_close(found.model[0].weight, network[0].weight[strong])


def test_a_pruned_network_is_pruned_again():
    network = _build("torchvision/shufflenet_v2_x0_5")
    once = prune(network, 0.7, SHAPE, multiple=4)
    twice = prune(once.model, 0.7, SHAPE, multiple=4)
    assert cost(twice.model, SHAPE)["macs"] < 0.5 * cost(network, SHAPE)["macs"]
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(twice.model(images), _silenced(once.model, twice, SHAPE)(images), rtol=0, atol=1e-5)


def test_a_target_out_of_reach_states_what_is_in_reach():
    network = _build("torchvision/mobilenet_v3_small", {"width_mult": 0.25})
    with pytest.raises(ModelError, match="target 0.05 of the MACs is out of reach") as caught:
        prune(network, 0.05, InputShape(3, 32, 32))
    lowest = narrowest(Channels.of(network, InputShape(3, 32, 32), 8), Counted("macs"))
    assert caught.value.allowed == f"{lowest:.3f} to 1"
    prune(network, lowest + 1e-6, InputShape(3, 32, 32))


class _Fixed(nn.Module):
    """Splits the channels of its first layer at a number that its code fixes."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, inner, 3), nn.Conv2d(inner, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).split([8, 8], 1)
        logits: torch.Tensor = self.last(self.inner(left + right).relu()).mean((2, 3))
        return logits


def test_layers_whose_width_the_code_fixes_stay_and_the_others_are_pruned():
    found = prune(_Fixed(32).eval(), 0.5, InputShape(3, 16, 16))
    assert {width.layer: width.after for width in found.widths} == {"first": 16, "inner": 8, "last": 4}
    assert dict(found.whole) == {"first": "the network's own code fixes their number"}


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.first(x).softmax(1)).mean((2, 3))
        return logits


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_Mixed(), "operators that do not treat channels apart: aten::_softmax"),
        (_Fixed(8), "does not run with fewer channels: "),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "none of its layers has channels"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name(network, reason):
    with pytest.raises(ModelError, match=f"{type(network).__name__} cannot be pruned") as caught:
        prune(network.eval(), 0.5, InputShape(3, 16, 16))
    assert reason in str(caught.value.found)
