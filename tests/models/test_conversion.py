from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.conversion import Conversion, resampling
from edgekd.models.edits.input import apply

PLAIN = {"image_size": [6, 8], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(("before", "after"), [(8, 24), (37, 80), (37, 20), (53, 7), (5, 5)])
def test_rows_are_resampled_as_pillow_does_it(before: int, after: int) -> None:
    row = np.random.default_rng(before).random((1, before), dtype=np.float32)
    expected = np.asarray(Image.fromarray(row, "F").resize((after, 1), Image.Resampling.BILINEAR))
    assert np.allclose(resampling(before, after) @ row[0], expected[0], atol=1e-6)


def test_another_normalisation_is_undone_and_the_own_one_done() -> None:
    given = {**PLAIN, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}
    own = {**PLAIN, "mean": [0.1, 0.2, 0.3], "std": [1.0, 0.5, 0.1]}
    levels = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    mean, std, own_mean, own_std = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (given["mean"], given["std"], own["mean"], own["std"])
    )
    found = Conversion(given, own).convert((levels - mean) / std)
    assert torch.allclose(found, (levels - own_mean) / own_std, atol=1e-6)


def test_greyscale_becomes_three_equal_channels_and_colours_their_luma() -> None:
    grey = {"image_size": [6, 8], "mean": [0.5], "std": [0.25]}
    levels = torch.rand(2, 1, 6, 8)
    assert torch.allclose(Conversion(grey, PLAIN).convert((levels - 0.5) / 0.25), levels.expand(2, 3, 6, 8), atol=1e-6)
    red = torch.zeros(1, 3, 6, 8)
    red[:, 0] = 1.0
    assert torch.allclose(
        Conversion(PLAIN, grey).convert(red), torch.full((1, 1, 6, 8), (0.299 - 0.5) / 0.25), atol=1e-6
    )


def test_another_ratio_keeps_the_image_whole_between_borders_of_the_mean() -> None:
    own = {"image_size": [24, 24], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    found = Conversion(PLAIN, own).convert(torch.ones(1, 3, 6, 8))
    assert found.shape == (1, 3, 24, 24)
    assert torch.allclose(found[:, :, 3:21], torch.ones(1, 3, 18, 24), atol=1e-6)
    assert not found[:, :, :3].any() and not found[:, :, 21:].any()


def test_the_last_edit_comes_first_and_copies_have_them_too() -> None:
    """From the data's inputs over those of the first edit to the network's own."""
    middle = {**PLAIN, "mean": [0.5, 0.5, 0.5]}
    network = nn.Identity()
    apply(network, {"edit": "input", "given": middle, "own": {**middle, "std": [2.0, 2.0, 2.0]}})
    apply(network, {"edit": "input", "given": PLAIN, "own": middle})
    expected = torch.full((1, 3, 6, 8), (1.0 - 0.5) / 2.0)
    assert torch.equal(copy.deepcopy(network)(torch.ones(1, 3, 6, 8)), expected)


@pytest.mark.parametrize(
    "own", [{}, {**PLAIN, "std": [0.0, 1.0, 1.0]}, {**PLAIN, "mean": [0.5]}, {**PLAIN, "image_size": 8}]
)
def test_a_damaged_edit_is_refused(own: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the input of this checkpoint is not valid"):
        apply(nn.Identity(), {"edit": "input", "given": PLAIN, "own": own})
