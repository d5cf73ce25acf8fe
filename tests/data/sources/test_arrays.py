from __future__ import annotations

import numpy as np

from edgekd.data.sources._arrays import ArraySamples


def test_images_labels_and_names_by_index():
    pixels = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    samples = ArraySamples("test", pixels, np.array([1, 0], np.uint8))
    assert len(samples) == 2 and samples.labels.dtype == np.int64 and samples.labels.tolist() == [1, 0]
    assert np.array_equal(np.asarray(samples.image(1)), pixels[1])
    assert samples.name(1) == "test[1]"
    grey = ArraySamples("train", pixels[..., 0], np.zeros(2))
    assert grey.image(0).mode == "L" and grey.image(0).size == (3, 2)
