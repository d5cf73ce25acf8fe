"""Which layers are chosen, their shapes, and the messages for wrong paths."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from edgekd.distillation.probe import Layer, Probe, pair
from edgekd.distillation.taps import Taps
from edgekd.errors import ModelError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.runtime.preprocess import InputShape

# Network, small stem, image size; paths and shapes of its stages; its embedding.
CHOICES = [
    (
        ("cifar/resnet20", False, 32),
        {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)},
        {"linear@input": (64,)},
    ),
    (  # Its blocks widen their input before they halve it: that wide map is no stage.
        ("torchvision/mobilenet_v2", True, 32),
        {
            "features.1": (16, 32, 32),
            "features.3": (24, 16, 16),
            "features.6": (32, 8, 8),
            "features.13": (96, 4, 4),
            "features": (1280, 2, 2),
        },
        {"classifier.0@input": (1280,)},
    ),
    (  # A stride of 32 leaves one pixel, which is a stage; what squeeze-and-excite squeezes is none.
        ("torchvision/mobilenet_v3_small", False, 32),
        {
            "features.0": (16, 16, 16),
            "features.1": (16, 8, 8),
            "features.3": (24, 4, 4),
            "features.8": (48, 2, 2),
            "features": (576, 1, 1),
        },
        {"classifier.2@input": (1024,)},
    ),
    (
        ("torchvision/shufflenet_v2_x0_5", True, 32),
        {"conv1": (24, 32, 32), "stage2": (48, 16, 16), "stage3": (96, 8, 8), "conv5": (1024, 4, 4)},
        {"fc@input": (1024,)},
    ),
    (  # The classifier is a convolution before the pooling, and no stage.
        ("torchvision/squeezenet1_1", False, 64),
        {"features.1": (64, 31, 31), "features.4": (128, 15, 15), "features.7": (256, 7, 7), "features": (512, 3, 3)},
        {"classifier.0@input": (512, 3, 3)},
    ),
    (
        ("torchvision/resnet18", True, 64),
        {"layer1": (64, 64, 64), "layer2": (128, 32, 32), "layer3": (256, 16, 16), "layer4": (512, 8, 8)},
        {"fc@input": (512,)},
    ),
    (  # A transition narrows its map before it pools: the stage ends before it.
        ("torchvision/densenet121", False, 32),
        {
            "features.relu0": (64, 16, 16),
            "features.denseblock1": (256, 8, 8),
            "features.denseblock2": (512, 4, 4),
            "features.denseblock3": (1024, 2, 2),
            "features": (1024, 1, 1),
        },
        {"classifier@input": (1024,)},
    ),
    (  # A convolution behind the global pooling is no stage.
        ("timm/mobilenetv4_conv_small", True, 32),
        {
            "bn1": (32, 32, 32),
            "blocks.0": (32, 16, 16),
            "blocks.1": (64, 8, 8),
            "blocks.2": (96, 4, 4),
            "blocks": (960, 2, 2),
        },
        {"classifier@input": (1280,)},
    ),
    (
        ("timm/convnext_atto", False, 64),
        {"stages.0": (40, 16, 16), "stages.1": (80, 8, 8), "stages.2": (160, 4, 4), "stages": (320, 2, 2)},
        {"head.fc@input": (320,)},
    ),
]


def _net(model: str, *, small_stem: bool = False, **arguments: int) -> nn.Module:
    return build(Architecture(model=model, num_classes=5, small_stem=small_stem, arguments=arguments))


@pytest.mark.parametrize(("network", "stages", "embedding"), CHOICES, ids=[case[0][0] for case in CHOICES])
def test_choices(network, stages, embedding):
    name, small_stem, size = network
    probe = Probe(_net(name, small_stem=small_stem), InputShape(3, size, size))
    paths = probe.choose("stages")
    assert list(probe.shapes(paths).items()) == list(stages.items())
    assert probe.shapes(probe.choose("embedding")) == embedding
    assert probe.choose("last") == paths[-1:]
    assert probe.choose("middle") == (paths[(len(paths) - 1) // 2],)


def test_chosen_stages_are_what_a_real_forward_pass_gives():
    network = _net("cifar/resnet8")
    probe = Probe(network, InputShape(3, 16, 16))
    paths = probe.choose("stages")
    with Taps(network, paths).reading() as read:
        network(torch.randn(3, 3, 16, 16))
    assert {path: tuple(read[path].shape[1:]) for path in paths} == probe.shapes(paths)


def test_pairs_are_matched_from_the_deepest_backwards():
    student, teacher = (
        Probe(_net("cifar/resnet8"), InputShape(3, 32, 32)),
        Probe(_net("torchvision/resnet18", small_stem=True), InputShape(3, 32, 32)),
    )
    ours, theirs = ("layer1", "layer2", "layer3"), ("layer2", "layer3", "layer4")
    assert pair(student, teacher, "stages") == (ours, theirs)
    assert pair(teacher, student, "stages") == (theirs, ours)
    assert pair(student, teacher, "middle") == (("layer2",), ("layer3",))
    assert pair(student, teacher, "last") == (("layer3",), ("layer4",))
    assert pair(student, teacher, "embedding") == (("linear@input",), ("fc@input",))


def test_a_vision_transformer_has_an_embedding_but_no_stages():
    probe = Probe(_net("timm/vit_tiny_patch16_224", img_size=32, depth=2), InputShape(3, 32, 32), whose="teacher")
    assert probe.shapes(probe.choose("embedding")) == {"head@input": (192,)}
    with pytest.raises(ModelError, match="the teacher has no stages") as caught:
        probe.choose("middle")
    assert caught.value.found == "norm gives tokens (B, 5, 192)"


def test_layers_come_in_order_of_their_last_run(toy):
    assert Probe(toy, InputShape(3, 8, 8)).layers == [
        Layer("conv", (4, 8, 8)),
        Layer("norm", (4, 8, 8)),
        Layer("relu", (4, 4, 4)),
        Layer("drop", (4,)),
        Layer("fc", (2,)),
    ]


def test_a_probe_leaves_the_network_unchanged(toy):
    toy.train()
    toy.norm.eval()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    Probe(toy, InputShape(3, 8, 8))
    assert {name for name, module in toy.named_modules() if not module.training} == {"norm"}
    assert all(torch.equal(before[name], value) for name, value in toy.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy.modules())


@pytest.mark.parametrize(
    ("path", "found"),
    [("pool", "a tuple of 2"), ("unused", "nothing: it does not run in this network")],
)
def test_what_is_not_a_feature_has_no_shape(toy, path, found):
    with pytest.raises(ModelError) as caught:
        Probe(toy, InputShape(3, 8, 8)).shapes([path])
    assert caught.value.found == found


def test_the_message_for_an_unknown_path_has_the_nearest_ones_and_their_shapes():
    network = _net("cifar/resnet8")
    with pytest.raises(UsageError, match="the student has no module 'layer5'") as caught:
        Probe(network, InputShape(3, 32, 32), whose="student").shapes(["layer5@input"])
    assert "layer3 (64x8x8)" in str(caught.value.allowed)
    assert caught.value.hint in {f"did you mean 'layer{i}'?" for i in (1, 2, 3)}


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ModelError, match="the teacher cannot take images of 32x32 pixels"):
        Probe(_net("torchvision/alexnet"), InputShape(3, 32, 32), whose="teacher")


def test_a_traced_network_has_an_embedding_but_no_stages():
    probe = Probe(fx.symbolic_trace(_net("cifar/resnet8")), InputShape(3, 32, 32))
    assert probe.choose("embedding") == ("linear@input",)
    with pytest.raises(ModelError, match="traced"):
        probe.choose("stages")
