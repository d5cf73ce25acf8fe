"""Networks for greyscale images: the first convolution takes one channel instead of three."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.errors import ModelError


def to_greyscale(model: nn.Module, name: str) -> None:
    """Give the first convolution of an RGB network one input channel, in place.

    Its weights are summed over the three channels: the network answers a greyscale image as it answered the image with
    three equal channels, where mean and std of these are equal.

    Args:
        model: its first layer is a convolution of three channels.
        name: source/name, for the message.

    Raises:
        ModelError: no convolution takes three channels.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels in (1, 3):
            if layer.in_channels == 3:
                # In place: the layer may be of a class of the network's own.
                layer.weight = nn.Parameter(summed(layer.weight.detach()))
                layer.in_channels = 1
            return
    raise ModelError(
        f"{name} cannot be built for greyscale images",
        found="no convolution takes three channels",
        hint="set data.channels: 3, or choose another network",
    )


def summed(weight: Tensor) -> Tensor:
    """The weights of an RGB convolution (O, 3, H, W) for greyscale images: (O, 1, H, W)."""
    return weight.sum(dim=1, keepdim=True)
