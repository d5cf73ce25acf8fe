from __future__ import annotations

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.sources import torchvision


def test_how_many_classes_published_weights_know():
    assert torchvision.published_classes("mobilenet_v3_small") == 1000


def test_arguments_reach_the_network_and_misspelt_ones_do_not_vanish():
    half, whole = (torchvision.build("mobilenet_v2", num_classes=4, width_mult=width) for width in (0.5, 1.0))
    assert sum(p.numel() for p in half.parameters()) < sum(p.numel() for p in whole.parameters())
    with pytest.raises(ModelError, match="takes no argument 'width_mul'(?s:.)*width_mult"):
        torchvision.build("mobilenet_v2", num_classes=4, width_mul=0.5)


def test_published_weights_of_a_network_that_asks_for_their_version(monkeypatch):
    published = torchvision.build("mnasnet0_5", num_classes=1000).state_dict()
    weights = torchvision.torchvision.models.MNASNet0_5_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: published)
    network = torchvision.build("mnasnet0_5", num_classes=3, pretrained=True)
    assert torch.equal(network.layers[0].weight, published["layers.0.weight"])


def test_published_weights_are_loaded_but_for_the_last_layer(monkeypatch):
    """The download is the only thing that is replaced."""
    published = torchvision.build("squeezenet1_1", num_classes=1000).state_dict()
    weights = torchvision.torchvision.models.SqueezeNet1_1_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: published)
    network = torchvision.build("squeezenet1_1", num_classes=3, pretrained=True)
    assert torch.equal(network.features[0].weight, published["features.0.weight"])
    assert network.classifier[1].weight.shape[0] == 3
    same = torchvision.build("squeezenet1_1", num_classes=1000, pretrained=True)
    assert torch.equal(same.classifier[1].weight, published["classifier.1.weight"])
