"""CIFAR-10: 60,000 colour images, 32×32 pixels, in 10 classes, laid out as torchvision downloads it."""

from __future__ import annotations

from edgekd.data.sources import RawData, Source, _cifar
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json


def fingerprint(settings: DataSettings) -> Json:
    return _cifar.fingerprint(settings, "CIFAR10")


def read(settings: DataSettings) -> RawData:
    return _cifar.read(settings, "CIFAR10")


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True)
