from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.data.splits import carve, carve_sets, draw, proportional
from edgekd.errors import DataError


def test_carved_shares_are_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    chosen = carve(labels, np.arange(153), "abc", 0.2, (0, 1))
    assert np.bincount(labels[chosen]).tolist() == [20, 10, 1]
    assert np.array_equal(chosen, carve(labels, np.arange(153), "abc", 0.2, (0, 1)))
    assert not np.array_equal(chosen, carve(labels, np.arange(153), "abc", 0.2, (1, 1)))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 0.49), st.lists(st.integers(2, 9), min_size=2, max_size=5))
def test_carving_keeps_equal_images_together(seed: int, share: float, sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).repeat(2)
    contents = np.arange(sum(sizes)).repeat(2)
    chosen = carve(labels, contents, [str(c) for c in range(len(sizes))], share, (seed,))
    assert not set(contents[chosen]) & set(contents[~chosen])
    assert set(labels[chosen]) == set(labels[~chosen]) == set(range(len(sizes)))


def test_a_class_with_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 class has too few.*\n  found: b \\(1\\)\n  allowed: 2 or more"):
        carve(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]), "ab", 0.2, (0,))
    with pytest.raises(DataError, match=r"found: b \(1, and 1 with another label too\)"):
        carve(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 1]), "ab", 0.2, (0,))


def test_enough_remains_for_the_splits_to_come() -> None:
    labels = np.repeat([0, 1], [3, 3])
    assert carve(labels, np.arange(6), "ab", 0.9, (0,), leave=2).sum() == 2
    with pytest.raises(DataError, match=r"2 classes have .*\n  found: a \(3\), b \(3\)\n  allowed: 4 or more"):
        carve(labels, np.arange(6), "ab", 0.9, (0,), leave=3)


def test_a_million_images_in_a_thousand_classes() -> None:
    labels = np.arange(1_000_000) % 1000
    chosen = draw(labels, np.full(1000, 7), np.random.default_rng(0))
    assert np.all(np.bincount(labels[chosen]) == 7)


def test_proportional_by_hand() -> None:
    assert proportional(np.array([100, 50, 50]), 20).tolist() == [10, 5, 5]
    assert proportional(np.array([100, 10, 1]), 11).tolist() == [9, 1, 1]
    assert proportional(np.array([3, 4]), 100).tolist() == [3, 4]
    with pytest.raises(DataError, match="data.limit"):
        proportional(np.array([9, 9, 9]), 2)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 300))
def test_proportional_adds_up(counts: list[int], extra: int) -> None:
    available = np.array(counts)
    total = len(counts) + extra
    quotas = proportional(available, total)
    assert quotas.sum() == min(total, available.sum())
    assert np.all(quotas >= 1) and np.all(quotas <= available)


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_split_by_every_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random((400, 4)) < [0.5, 0.2, 0.05, 0.01]).astype(np.int64)
    labels[0, 3] = 1
    contents = np.arange(400)
    contents[200:210] = np.arange(10)  # equal images
    labels[200:210] = labels[:10]
    chosen = carve_sets(labels, contents, 0.2, [seed])
    assert np.array_equal(chosen, carve_sets(labels, contents, 0.2, [seed]))
    assert not np.array_equal(chosen, carve_sets(labels, contents, 0.2, [seed + 1]))
    assert not set(contents[chosen]) & set(contents[~chosen]), "equal images stay together"
    counts, own = labels.sum(0), labels[chosen].sum(0)
    assert (np.abs(own - 0.2 * counts) <= np.maximum(2, 0.06 * counts)).all()
    assert (own[counts > 1] > 0).all() and (own < counts).all()


def test_the_only_image_of_a_class_is_trained_on() -> None:
    labels = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [0, 0]])
    chosen = carve_sets(labels, np.arange(5), 0.4, [0])
    assert not chosen[1] and chosen[[0, 2]].sum() == 1 and chosen[3:].sum() == 1
