"""Who holds which images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.leaks import contents
from edgekd.distillation.federation.partition import LEAST, deal, partition
from edgekd.errors import DataError


def test_every_image_belongs_to_one_client():
    labels = np.repeat(np.arange(4), 50)
    for alpha in (None, 100.0, 0.2):
        parts = deal(labels, 3, alpha, [0])
        assert sorted(np.concatenate(parts).tolist()) == list(range(200))
        assert min(map(len, parts)) >= LEAST
        assert all(np.array_equal(*pair) for pair in zip(parts, deal(labels, 3, alpha, [0]), strict=True))
    counts = np.array([np.bincount(labels[part], minlength=4) for part in deal(labels, 3, None, [0])])
    assert counts.max() - counts.min() <= 1
    skewed = np.array([np.bincount(labels[part], minlength=4) for part in deal(labels, 3, 0.2, [0])])
    assert skewed.max() > 40 and skewed.min() < 3
    with pytest.raises(DataError, match="too few private images"):
        deal(labels[:20], 3, None, [0])
    with pytest.raises(DataError, match="fewer than 10"):
        deal(np.zeros(30, dtype=np.int64), 3, 0.01, [0])


def test_public_images_belong_to_no_client_and_have_no_labels(small_digits, tmp_path):
    partitioned = partition(small_digits, tmp_path, clients=2, public_share=0.3, alpha=0.5, seed=0)
    public, own = partitioned.public(small_digits), [partitioned.client(number, small_digits) for number in (1, 2)]
    assert set(public.labels) == {-1} and all((split.labels >= 0).all() for split in own)
    assert sum(map(len, (public, *own))) == small_digits.details.counts["train"]
    assert len(public) == pytest.approx(0.3 * small_digits.details.counts["train"], abs=10)
    assert not set(contents(public)) & set(contents(own[0])) | set(contents(public)) & set(contents(own[1]))
    assert [sum(partitioned.metrics["images"][f"client{number}"].values()) for number in (1, 2)] == list(map(len, own))
