from __future__ import annotations

import numpy as np

from edgekd.data.sources import source_named
from edgekd.recipe.settings import DataSettings


def test_the_classes_are_the_fine_ones(small_cifar, images):
    fine, coarse = [5 * index for index in range(20)], [index % 20 for index in range(20)]
    names = [f"class {number}" for number in range(100)]
    root = small_cifar("CIFAR100", images, fine, names, coarse_labels=coarse)
    raw = source_named("cifar100").read(DataSettings(source="cifar100", root=root))
    assert raw.classes == tuple(names) and set(raw.splits) == {"train", "test"}
    assert raw.splits["train"].labels.tolist() == raw.splits["test"].labels.tolist() == fine
    assert np.array_equal(np.asarray(raw.splits["train"].image(19)), images[19])
