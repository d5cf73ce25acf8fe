"""CIFAR-10: 60,000 colour images, 32×32 pixels, in 10 classes, laid out as torchvision downloads it."""

from __future__ import annotations

from edgekd.data.sources import RawData, Source, _cifar
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json


def fingerprint(settings: DataSettings) -> Json:
    """The published archive's checksum.

    Args:
        settings: its root and whether it may be downloaded.

    Raises:
        DataError: the files are missing and data.download is false, or there is no root.
    """
    return _cifar.fingerprint(settings, "CIFAR10")


def read(settings: DataSettings) -> RawData:
    """CIFAR-10's images and labels: 50,000 for training, 10,000 for the test.

    Args:
        settings: its root and whether it may be downloaded.

    Raises:
        DataError: the files are missing or changed, or cannot be downloaded.
    """
    return _cifar.read(settings, "CIFAR10")


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True)
