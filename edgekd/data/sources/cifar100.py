"""CIFAR-100: 60,000 colour images, 32×32 pixels, in 100 classes, laid out as torchvision downloads it."""

from __future__ import annotations

from edgekd.data.sources import RawData, Source, _cifar
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json


def fingerprint(settings: DataSettings) -> Json:
    return _cifar.fingerprint(settings, "CIFAR100")


def read(settings: DataSettings) -> RawData:
    return _cifar.read(settings, "CIFAR100")


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True)
