"""One way from a split to network input."""

from __future__ import annotations

import numpy as np

from edgekd.data.loader import Loader
from edgekd.data.reader import Reader, open_reader
from edgekd.runtime.preprocess import Preprocessing


class Split:
    """Five images of 6x6 whose pixels count upwards, so that each has content of its own."""

    labels = np.array([3, 1, 4, 1, 5])
    streamed = False

    def __len__(self) -> int:
        return 5

    def pixels(self, indices):
        return (np.arange(5 * 6 * 6 * 3).reshape(5, 6, 6, 3) % 251).astype(np.uint8)[indices]


READER = Reader(Split(), Preprocessing((4, 4), (6, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))


def test_inputs_are_the_normalised_centre_of_the_chosen_images() -> None:
    rows = np.array([4, 0])
    centre = Split().pixels(rows)[:, 1:5, 1:5]
    assert np.array_equal(READER.pixels(rows), centre)
    expected = (centre / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    found = READER.inputs(rows)
    assert found.dtype == np.float32 and found.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_batches_hold_every_image_once_in_order_with_its_label() -> None:
    batches = list(READER.batches(size=2))
    assert [len(inputs) for inputs, _ in batches] == [2, 2, 1]
    assert np.concatenate([labels for _, labels in batches]).tolist() == [3, 1, 4, 1, 5]
    assert np.array_equal(np.concatenate([inputs for inputs, _ in batches]), READER.inputs(np.arange(5)))


def test_batches_of_chosen_rows_keep_their_order() -> None:
    rows = np.array([2, 0, 4])
    batches = list(READER.batches(rows, size=2))
    assert np.concatenate([labels for _, labels in batches]).tolist() == [4, 3, 5]
    assert np.array_equal(np.concatenate([inputs for inputs, _ in batches]), READER.inputs(rows))


def test_the_first_rows_are_at_most_all_of_them() -> None:
    assert READER.first(3).tolist() == [0, 1, 2] and READER.first(99).tolist() == [0, 1, 2, 3, 4]


def test_the_evaluation_of_a_training_sees_the_same_bits(small_digits) -> None:
    reader = open_reader(small_digits, "validation")
    loader = Loader(reader.split, reader.preprocessing, batch_size=32)
    for batch, (inputs, labels) in zip(loader.epoch(0), reader.batches(size=32), strict=True):
        assert np.array_equal(batch.images.numpy(), inputs) and np.array_equal(batch.targets.numpy(), labels)
