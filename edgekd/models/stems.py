"""Stems for small images: the first layer of networks made for 224x224 discards three quarters of a 32x32 image."""

from __future__ import annotations

from torch import nn

from edgekd import plugins
from edgekd.errors import ModelError
from edgekd.runtime.preprocess import Size

_SMALL = 64


def wants_small_stem(model: str, image_size: Size, stem: str) -> bool:
    """Whether `stem: auto | small | standard` asks for the small stem.

    Args:
        model: source/name.
        image_size: height and width of the images, in pixels.
        stem: the recipe's setting.

    Raises:
        ModelError: `small` for a network whose stem is not known.
    """
    known = _stem_of(model) is not None
    if stem == "small" and not known:
        raise ModelError(
            f"there is no small-image stem for {model}",
            allowed="MobileNetV2/V3, ShuffleNetV2, SqueezeNet, MNASNet, EfficientNet, ResNet",
            hint="remove stem, or choose one of these networks",
        )
    return known and (stem == "small" or (stem == "auto" and max(image_size) <= _SMALL))


def shrink_stem(model: nn.Module, name: str) -> None:
    """Give the first convolution stride 1, and remove the max-pooling behind it, in place.

    A 7x7 first convolution is cropped to its centre 3x3, so that published weights can still be used.

    Raises:
        ModelError: the network does not have the stem that its source states.
    """
    found = _stem_of(name)
    if found is None:
        raise ModelError(f"there is no small-image stem for {name}")
    conv_path, pool_path = found
    try:
        conv = model.get_submodule(conv_path)
        pool = model.get_submodule(pool_path) if pool_path else None
    except AttributeError as error:
        raise ModelError(f"{name} has another stem than its source states", found=str(error)) from None
    if not isinstance(conv, nn.Conv2d) or not (pool is None or isinstance(pool, nn.MaxPool2d)):
        raise ModelError(f"{name} has another stem than its source states", found=f"{conv}, {pool}")
    model.set_submodule(conv_path, _same_size(conv))
    if pool_path:
        model.set_submodule(pool_path, nn.Identity())


def _same_size(conv: nn.Conv2d) -> nn.Conv2d:
    small = type(conv)(conv.in_channels, conv.out_channels, 3, 1, 1, bias=conv.bias is not None)
    border = (conv.kernel_size[0] - 3) // 2
    small.weight.data.copy_(conv.weight.data[:, :, border : border + 3, border : border + 3])
    if conv.bias is not None and small.bias is not None:
        small.bias.data.copy_(conv.bias.data)
    return small


def _stem_of(model: str) -> tuple[str, str | None] | None:
    """The paths of its first convolution and max-pool, as its source states; None for a network of the user's own."""
    source, _, name = model.partition("/")
    if source not in plugins.names("models"):
        return None
    found: tuple[str, str | None] | None = plugins.load("models", source).stem(name)
    return found
