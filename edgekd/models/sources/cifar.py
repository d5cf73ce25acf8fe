"""Residual networks for 32x32 images (He et al., Deep Residual Learning, section 4.2), and wide variants of them.

`resnet20` and the like have the original widths 16-32-64 and parameter-free shortcuts; `resnet20x2` doubles them and
`resnet32x4` has 64-128-256 behind a stem of 32, both with projections, as the distillation literature uses them.
`resnet9` has few but wide layers and max-pooling, and is trained in a few epochs (Page, How to Train Your
ResNet, 2018); `resnet9x0.5` has half its widths.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.models.sources import ModelSource

_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_WIDTHS = {"": (16, 16, 32, 64), "x2": (32, 32, 64, 128), "x4": (32, 64, 128, 256)}
_NAMES = {f"resnet{depth}{suffix}": (depth, suffix) for depth in _DEPTHS for suffix in _WIDTHS}
_NINE = {"resnet9": 64, "resnet9x0.5": 32}


def names() -> tuple[str, ...]:
    return (*_NAMES, *_NINE)


def build(name: str, *, num_classes: int, pretrained: bool = False) -> nn.Module:
    """Raises ValueError for pretrained: there are no published weights for these models."""
    if pretrained:
        raise ValueError("there are no published weights: set checkpoint, or train it")
    if name in _NINE:
        return ResNet9(_NINE[name], num_classes)
    depth, suffix = _NAMES[name]
    return CifarResNet((depth - 2) // 6, _WIDTHS[suffix], num_classes, projection=suffix != "")


def published_classes(name: str) -> int:
    """Raises ValueError: see build()."""
    raise ValueError(f"there are no published weights of cifar/{name}")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int, *, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = _projection(width_in, width_out, stride) if projection else _Pad(stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = self.shortcut(x, out.shape[1]) if isinstance(self.shortcut, _Pad) else self.shortcut(x)
        return F.relu(out + shortcut)


class CifarResNet(nn.Module):
    """Args: blocks per stage; widths of stem and stages; number of classes; whether shortcuts are projections."""

    def __init__(self, blocks: int, widths: tuple[int, int, int, int], num_classes: int, *, projection: bool) -> None:
        super().__init__()
        stem, *stages = widths
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = [stem, *stages[:-1]]
        self.layer1, self.layer2, self.layer3 = (
            _stage(blocks, before, after, stride, projection=projection)
            for before, after, stride in zip(inputs, stages, (1, 2, 2), strict=True)
        )
        self.linear = nn.Linear(stages[-1], num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, num_classes) logits."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class ResNet9(nn.Module):
    """Args: width of the stem, doubled by every stage; number of classes. Images need at least 8x8 pixels."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = _convolution(3, width)
        self.layer1 = nn.Sequential(_convolution(width, 2 * width), nn.MaxPool2d(2), _Residual(2 * width))
        self.layer2 = nn.Sequential(_convolution(2 * width, 4 * width), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(_convolution(4 * width, 8 * width), nn.MaxPool2d(2), _Residual(8 * width))
        self.linear = nn.Linear(8 * width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, num_classes) logits."""
        out = self.layer3(self.layer2(self.layer1(self.stem(x))))
        # Maxima are large; the original scales the logits, which is equivalent except for the bias.
        logits: Tensor = self.linear(0.125 * F.adaptive_max_pool2d(out, 1).flatten(1))
        return logits


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class _Pad(nn.Module):
    """Subsampling, and zeros for the new channels (option A of the paper)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, width: int) -> Tensor:
        """(B, C, H, W) to (B, width, H / stride, W / stride); pruning changes both widths."""
        channels = width - x.shape[1]
        before = channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, channels - before))


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _convolution(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, 1, 1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU(inplace=True)
    )


def _projection(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))


def _stage(blocks: int, width_in: int, width_out: int, stride: int, *, projection: bool) -> nn.Sequential:
    first = BasicBlock(width_in, width_out, stride, projection=projection)
    rest = (BasicBlock(width_out, width_out, 1, projection=projection) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


MODELS = ModelSource(names=names, build=build, published_classes=published_classes)
