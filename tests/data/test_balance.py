"""Images drawn by class, and weights of classes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from edgekd.data.balance import Balance, class_probabilities, class_weights, counts_of, draw_by_class, resolved
from edgekd.data.loader import Loader, Variation
from edgekd.errors import UsageError
from edgekd.recipe.settings import AugmentSettings, DataSettings
from edgekd.runtime.preprocess import Pixels, Preprocessing

LABELS = np.array([2] * 64 + [0] * 16 + [3] * 4)


def test_a_recipe_may_set_what_is_known() -> None:
    assert get_args(DataSettings.model_fields["balance"].annotation) == get_args(Balance)


def test_probabilities_by_hand() -> None:
    counts = np.array([16, 0, 64, 4])
    expected = {
        "none": [16 / 84, 0, 64 / 84, 4 / 84],
        "sqrt": [4 / 14, 0, 8 / 14, 2 / 14],
        "full": [1 / 3, 0, 1 / 3, 1 / 3],
    }
    for balance in get_args(Balance):
        assert class_probabilities(counts, balance).tolist() == pytest.approx(expected[balance])


@pytest.mark.parametrize("balance", get_args(Balance))
def test_draws_have_these_probabilities(balance: Balance) -> None:
    rows = np.concatenate([draw_by_class(LABELS, balance, seed=1, epoch=epoch) for epoch in range(300)])
    found = np.bincount(LABELS[rows], minlength=4) / len(rows)
    # 25,200 draws: a standard deviation is at most 0.0032.
    assert found == pytest.approx(class_probabilities(np.bincount(LABELS), balance), abs=0.013)
    per_image = np.bincount(rows, minlength=len(LABELS))[LABELS == 0]
    assert per_image.min() > 0.6 * per_image.mean() and per_image.max() < 1.4 * per_image.mean()


def test_draws_follow_from_seed_and_epoch() -> None:
    one, same = (draw_by_class(LABELS, "full", seed=3, epoch=2) for _ in range(2))
    others = [draw_by_class(LABELS, "full", seed=seed, epoch=epoch) for seed, epoch in ((3, 1), (4, 2), (-1, 2))]
    assert np.array_equal(one, same) and not any(np.array_equal(one, other) for other in others)
    assert len(one) == len(LABELS) and one.dtype == np.int64


def test_weights_by_hand() -> None:
    assert class_weights([6, 2, 4]) == pytest.approx((12 / 18, 12 / 6, 12 / 12))
    assert class_weights([5, 5]) == (1.0, 1.0)
    assert resolved("auto", [1, 3]) == pytest.approx((2.0, 2 / 3)) and resolved(None, []) is None
    assert resolved((1.0, 2.0), [0, 9]) == (1.0, 2.0)
    assert counts_of(np.array([1, -1, 1, 0]), 4) == (1, 2, 0, 0)


@pytest.mark.parametrize(("counts", "found"), [([], "0 of 0"), ([3, 0], "1 of 2")])
def test_weights_of_classes_without_images(counts: list[int], found: str) -> None:
    with pytest.raises(UsageError, match=f"of every class\n  found: images of {found} classes"):
        resolved("auto", counts)


def test_another_number_of_weights() -> None:
    with pytest.raises(UsageError, match="another length\n  found: 2\n  allowed: one for each of 3 classes"):
        resolved((1.0, 2.0), [1, 1, 1])


class Noise:
    """A split whose images are all different."""

    streamed = False
    labels = LABELS

    def __len__(self) -> int:
        return len(LABELS)

    def pixels(self, indices: np.ndarray) -> Pixels:
        noise: Pixels = np.random.default_rng(0).integers(0, 256, (len(LABELS), 16, 16, 3), dtype=np.uint8)
        return noise[indices]


def loader(views: int | None = None) -> Loader:
    variation = Variation(AugmentSettings(), mirror=True, seed=5, views=views, balance="full")
    return Loader(Noise(), Preprocessing((14, 14), (16, 16)), batch_size=16, variation=variation)


def test_the_loader_draws_by_class_and_an_epoch_can_be_drawn_again() -> None:
    first, again = (list(loader().epoch(3)) for _ in range(2))
    rows = torch.cat([batch.indices for batch in first]).numpy()
    assert len(loader()) == len(first) == 5
    assert np.array_equal(rows, draw_by_class(LABELS, "full", seed=5, epoch=3)[:80])
    assert np.bincount(LABELS[rows], minlength=4)[3] > 15, "of 84 images 4 are of this class"
    assert all(torch.equal(one.images, other.images) for one, other in zip(first, again, strict=True))
    assert torch.equal(torch.cat([batch.targets for batch in first]), torch.from_numpy(LABELS[rows]))


@pytest.mark.parametrize("views", [None, 2])
def test_an_image_drawn_twice_looks_different_unless_its_views_are_fixed(views: int | None) -> None:
    batches = list(loader(views).epoch(1))
    images, rows = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "indices"))
    same = images[rows == torch.mode(rows).values]
    assert len(same) > 4 and (len(torch.unique(same.flatten(1), dim=0)) == 1) == (views is not None)
