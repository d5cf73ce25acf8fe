"""The input of RGB weights that are used on greyscale images."""

from __future__ import annotations

import pytest

from edgekd.models.trained_input import TrainedInput

RGB = TrainedInput((8, 8), mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4))


def test_greyscale_images_are_normalised_by_the_means_over_the_channels() -> None:
    seen = RGB.seen_in(1)
    assert (seen.mean, seen.std) == (pytest.approx((0.3,)), pytest.approx((0.3,)))
    assert (seen.channels, seen.image_size) == (1, (8, 8))


@pytest.mark.parametrize("known", [RGB, TrainedInput((8, 8)), TrainedInput(mean=(0.5,), std=(0.5,))])
def test_otherwise_nothing_changes(known: TrainedInput) -> None:
    assert known.seen_in(3) is known
    assert known is RGB or known.seen_in(1) is known
