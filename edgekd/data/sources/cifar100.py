"""CIFAR-100: 60,000 colour images, 32×32 pixels, in 100 classes, laid out as torchvision downloads it."""

from __future__ import annotations

from edgekd.data.sources._cifar import source

SOURCE = source("CIFAR100")
