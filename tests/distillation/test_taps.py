"""Features by module path: what is read, and when."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgekd.distillation.taps import Taps
from edgekd.errors import ModelError, UnknownNameError


def test_taps_hold_the_value_before_what_is_done_in_place(toy):
    paths = ["fc@input", "drop@input", "norm", "relu@input", "norm"]
    images = torch.randn(3, 3, 8, 8)
    with Taps(toy.train(), paths).reading() as read:
        toy(images)
    assert list(read) == ["fc@input", "drop@input", "norm", "relu@input"]
    normal = F.batch_norm(toy.conv(images), None, None, toy.norm.weight, toy.norm.bias, training=True)
    torch.testing.assert_close(read["norm"], normal)
    # The ReLU's second run is the one that counts.
    torch.testing.assert_close(read["relu@input"], F.max_pool2d(normal.relu(), 2) - 1)
    torch.testing.assert_close(read["drop@input"], read["relu@input"].relu().mean((2, 3)))
    assert not torch.equal(read["fc@input"], read["drop@input"])


def test_gradients_flow_through_taps_and_change_nothing_else(toy):
    toy.eval()
    images = torch.randn(3, 3, 8, 8)
    plain = toy(images)
    with Taps(toy, ["norm"]).reading() as read:
        tapped = toy(images)
    assert torch.equal(plain, tapped)
    read["norm"].sum().backward()
    assert toy.conv.weight.grad is not None and toy.fc.weight.grad is None


def test_hooks_live_only_inside_the_block(toy):
    taps = Taps(toy, ["norm", "fc@input"])
    with pytest.raises(RuntimeError, match="channels"), taps.reading():
        toy(torch.randn(3, 5, 8, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy.modules())
    with taps.reading() as read:
        toy(torch.randn(3, 3, 8, 8))
    toy(torch.randn(1, 3, 8, 8))
    assert read["norm"].shape[0] == 3


def test_what_did_not_run_or_is_not_a_tensor_cannot_be_read(toy):
    with pytest.raises(ModelError, match="network's unused cannot be tapped"), Taps(toy, ["unused"]).reading():
        toy(torch.randn(3, 3, 8, 8))
    with pytest.raises(ModelError) as caught, Taps(toy, ["pool"], whose="student").reading():
        toy(torch.randn(3, 3, 8, 8))
    assert caught.value.what == "the student's pool cannot be tapped" and caught.value.found == "a tuple of 2"


def test_an_unknown_path_is_refused(toy):
    with pytest.raises(UnknownNameError, match="unknown module of the network 'layer5'"):
        Taps(toy, ["layer5"])
