"""Splits made of other splits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from edgekd.data.composed import Chosen, Joined, public_part
from edgekd.data.dataset import open_split
from edgekd.data.loader import Loader, Variation
from edgekd.data.prepare import prepare
from edgekd.data.sources import UNLABELLED
from edgekd.recipe.settings import AugmentSettings, DataSettings


def test_chosen_rows_keep_their_pixels_and_may_hide_their_labels(small_digits):
    train = open_split(small_digits, "train")
    some, hidden = (Chosen(train, np.array([5, 2, 5]), labelled=labelled) for labelled in (True, False))
    assert some.labels.tolist() == train.labels[[5, 2, 5]].tolist()
    assert hidden.labels.tolist() == [UNLABELLED] * 3
    assert np.array_equal(hidden.pixels(np.array([2, 1])), train.pixels(np.array([5, 2])))


def test_joined_splits_give_each_index_its_own_image_in_the_order_asked(small_digits):
    train, test = open_split(small_digits, "train"), open_split(small_digits, "test")
    both = Joined([train, Chosen(test, np.array([], dtype=np.int64)), test])
    last = len(train)
    assert len(both) == len(train) + len(test) == len(both.labels) and not both.streamed
    pixels = both.pixels(np.array([last + 1, 0, last, 3]))
    assert np.array_equal(pixels[[1, 3]], train.pixels(np.array([0, 3])))
    assert np.array_equal(pixels[[2, 0]], test.pixels(np.array([0, 1])))
    assert both.labels[last] == test.labels[0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_they_pickle_cheaply_and_give_the_same_batches_from_any_number_of_workers(small_digits):
    train = open_split(small_digits, "train")
    both = Joined([train, Chosen(train, np.array([1, 1, 4]), labelled=False)])
    again = pickle.loads(pickle.dumps(both))
    assert len(pickle.dumps(both)) < len(both) * 40 + 2000

    def batches(split, workers):
        loader = Loader(
            split,
            small_digits.details.preprocessing,
            batch_size=64,
            variation=Variation(AugmentSettings(flip=False), seed=3),
            workers=workers,
        )
        return list(loader.epoch(2))

    for one, other in zip(batches(both, 0), batches(again, 2), strict=True):
        assert one.images.equal(other.images) and one.targets.equal(other.targets)


@pytest.mark.parametrize("storage", ["cached", "streamed"])
def test_a_public_part_has_some_images_no_labels_and_the_same_splits_to_measure_on(storage, tmp_path):
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    data = prepare(DataSettings(source="digits", image_size=8, storage=storage), tmp_path / "whole")
    rows = np.array([7, 3, 11])
    part = public_part(data, rows, tmp_path / "part")
    train = open_split(part, "train")
    assert train.labels.tolist() == [UNLABELLED] * 3 and part.details.counts["train"] == 3
    assert np.array_equal(train.pixels(np.arange(3)), open_split(data, "train").pixels(rows))
    for name in ("validation", "test"):
        one, other = open_split(part, name), open_split(data, name)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.pixels(np.arange(len(one))), other.pixels(np.arange(len(other))))
