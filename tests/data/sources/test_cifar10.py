from __future__ import annotations

import numpy as np

from edgekd.data.sources import source_named
from edgekd.recipe.settings import DataSettings


def test_images_and_labels(small_cifar, images):
    labels = [index % 10 for index in range(20)]
    root = small_cifar("CIFAR10", images, labels, list("abcdefghij"))
    raw = source_named("cifar10").read(DataSettings(source="cifar10", root=root))
    assert raw.classes == tuple("abcdefghij") and set(raw.splits) == {"train", "test"}
    assert np.array_equal(np.asarray(raw.splits["test"].image(3)), images[3])
    assert raw.splits["train"].labels.tolist() == labels


def test_a_mirrored_image_keeps_its_class():
    assert source_named("cifar10", where="data.source").mirror
