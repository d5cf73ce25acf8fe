"""Channels stand for those that go the same way, the important ones first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.errors import ModelError
from edgekd.pruning.flow import CONSTANT, Flow, Site
from edgekd.pruning.matching import gathered, match

A, LEFT, RIGHT = Site("a", 0), Site("left", 1), Site("right", 1)


def _flow(**sites) -> Flow:
    return Flow(
        {Site(name, 0 if name == "a" else 1): np.array(labels) for name, labels in sites.items()},
        frozenset(),
        (),
        (),
        (),
        {},
    )


def test_the_most_important_remain_in_their_order():
    full, narrow = _flow(a=[0, 1, 2, 3], left=[0, 1, 2, 3]), _flow(a=[0, 1], left=[0, 1])
    assert match(full, narrow, {0: 1.0, 1: 9.0, 2: 0.5, 3: 5.0}) == {0: 1, 1: 3}
    # Of equals the first ones.
    assert match(full, narrow, dict.fromkeys(range(4), 1.0)) == {0: 0, 1: 1}


def test_a_channel_of_another_branch_is_no_replacement():
    full = _flow(a=[0, 1, 2, 3], left=[0, 1], right=[2, 3])
    narrow = _flow(a=[0, 1], left=[0], right=[1])
    assert match(full, narrow, {0: 9.0, 1: 8.0, 2: 1.0, 3: 2.0}) == {0: 0, 1: 3}


def test_where_rounding_leaves_none_the_nearest_of_the_same_layer_stands_in_and_what_it_lacks_is_zero():
    full, narrow = _flow(a=[0, 1, 2], left=[0, 1, 2], right=[0]), _flow(a=[0, 1], left=[0, 1], right=[0, 1])
    found = match(full, narrow, {0: 1.0, 1: 2.0, 2: 3.0})
    assert found == {0: 0, 1: 2}
    tensors = {"a": torch.arange(3.0), "left": torch.tensor([[1.0, 2.0, 3.0]]), "right": torch.tensor([[7.0]])}
    made = gathered(tensors, full, narrow, found)
    assert {name: tensor.tolist() for name, tensor in made.items()} == {
        "a": [0.0, 2.0],
        "left": [[1.0, 3.0]],
        "right": [[7.0, 0.0]],
    }


def test_nothing_stands_for_a_channel_of_another_layer():
    with pytest.raises(ModelError, match="none of the full network's can stand"):
        match(_flow(left=[0]), _flow(a=[0]), {0: 1.0})


def test_weights_follow_their_channels_position_by_position():
    """A flattened map has one position per pixel; what belongs to no channel is taken in order."""
    full = _flow(a=[0, 1, 2], left=[CONSTANT, 0, 0, 1, 1, 2, 2])
    narrow = _flow(a=[0, 1], left=[CONSTANT, 0, 0, 1, 1])
    made = gathered(
        {"a": torch.tensor([[1.0], [2.0], [3.0]]), "left": torch.arange(14.0).reshape(2, 7), "other": torch.ones(2)},
        full,
        narrow,
        {0: 0, 1: 2},
    )
    assert made["a"].tolist() == [[1.0], [3.0]]
    assert made["left"].tolist() == [[0.0, 1.0, 2.0, 5.0, 6.0], [7.0, 8.0, 9.0, 12.0, 13.0]]
    assert made["other"].tolist() == [1.0, 1.0]
