"""ONNX files, as teachers: `model: teacher.onnx`. A checkpoint rebuilds one as `onnx/file` from its bytes."""

from __future__ import annotations

from torch import nn

from edgekd.models.onnx_network import OnnxNetwork
from edgekd.models.sources import ModelSource


def names() -> tuple[str, ...]:
    return ("file",)


def build(name: str, *, num_classes: int, pretrained: bool = False, size: int = 0, log: bool = False) -> nn.Module:
    """Raises ValueError without a size: a file is named by its path."""
    if pretrained or size < 1:
        raise ValueError("name the file: model: teacher.onnx")
    return OnnxNetwork(size, num_classes, log=log)


def published_classes(name: str) -> int:
    """Raises ValueError: there are none."""
    raise ValueError("an ONNX file has no published weights")


MODELS = ModelSource(names=names, build=build, published_classes=published_classes)
