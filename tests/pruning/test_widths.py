"""Which widths a part may have, and the shapes that follow."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.pruning.flow import CONSTANT, Flow, Site
from edgekd.pruning.widths import Part, narrowed_shapes, parts_of

# A stem of 4 channels, padded to 8 and added to a block's 8; the block's inner layer has 6, and logits 3.
SITES = {
    Site("stem", 0): np.arange(4),
    Site("inner", 1): np.arange(4),
    Site("inner", 0): np.arange(10, 16),
    Site("norm", 0): np.arange(10, 16),
    Site("outer", 1): np.arange(10, 16),
    Site("outer", 0): np.array([20, 21, 0, 1, 2, 3, 22, 23]),
    Site("head", 1): np.array([20, 21, 0, 1, 2, 3, 22, 23]),
    Site("head", 0): np.arange(30, 33),
}
SHAPES = {"stem": (4, 3, 1, 1), "inner": (6, 4, 1, 1), "norm": (6,), "outer": (8, 6, 3, 3), "head": (3, 8)}


def _flow(**changed) -> Flow:
    return Flow(
        **{"sites": SITES, "kept": frozenset({30, 31, 32}), "tied": (), "unknown": (), "outputs": (), "positions": {}}
        | changed
    )


def test_layers_that_share_channels_are_one_part_and_its_widths_keep_their_ratio():
    trunk, inner = parts_of(_flow(), SHAPES)
    assert trunk.layers == {"stem": 4, "outer": 8} and trunk.unit == 4
    assert inner.layers == {"inner": 6} and inner.unit == 6
    assert narrowed_shapes(_flow(), (trunk, inner), (3, 4), SHAPES) == {
        "stem": (3, 3, 1, 1),
        "inner": (4, 3, 1, 1),
        "norm": (4,),
        "outer": (6, 4, 3, 3),
        "head": (3, 6),
    }
    assert narrowed_shapes(_flow(), (trunk, inner), (4, 6), SHAPES) == {}


def test_positions_that_belong_to_no_channel_remain():
    sites = {**SITES, Site("head", 1): np.array([CONSTANT, CONSTANT, *range(10, 16)])}
    trunk, inner = parts_of(_flow(sites=sites), SHAPES)
    assert narrowed_shapes(_flow(sites=sites), (trunk, inner), (4, 3), SHAPES)["head"] == (3, 5)


def test_tied_parts_are_one_and_kept_channels_keep_their_part():
    (whole,) = parts_of(_flow(tied=(frozenset({0, 12}),)), SHAPES)
    assert whole.layers == {"stem": 4, "inner": 6, "outer": 8} and whole.unit == 2
    (inner,) = parts_of(_flow(kept=frozenset({30, 31, 32, 22})), SHAPES)
    assert inner.layers == {"inner": 6}


@pytest.mark.parametrize(
    ("layers", "unit", "multiple", "counts"),
    [
        ({"a": 24}, 24, 8, [8, 16, 24]),
        ({"a": 20}, 20, 8, [8, 16, 20]),
        ({"a": 6}, 6, 8, [6]),
        # Whole groups of 16 channels: any number of them is a multiple of 8.
        ({"a": 48}, 3, 8, [1, 2, 3]),
        ({"a": 36}, 3, 8, [2, 3]),
        ({"a": 16, "b": 32}, 16, 8, [8, 16]),
    ],
)
def test_every_width_is_a_multiple(layers, unit, multiple, counts):
    assert Part(frozenset(), layers, unit).counts(multiple) == counts
