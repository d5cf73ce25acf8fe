"""Every source of networks keeps its contract."""

from __future__ import annotations

import pytest

from edgekd import plugins
from edgekd.models.sources import ModelSource


@pytest.mark.parametrize("name", plugins.names("models"))
def test_a_source_lists_what_it_can_build(name):
    source = plugins.load("models", name)
    assert isinstance(source, ModelSource)
    smallest, arguments = {
        "timm": ("test_vit", {}),
        "torchvision": ("squeezenet1_1", {}),
        "cifar": ("resnet8", {}),
        "onnx": ("file", {"size": 8}),
    }[name]
    assert smallest in source.names()
    network = source.build(smallest, num_classes=3, **arguments)
    # An ONNX file's weights are in the file.
    assert any(parameter.shape[:1] == (3,) for parameter in network.parameters()) or name == "onnx"
