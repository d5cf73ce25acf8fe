"""A calibration's name is of its content: every part of it counts, the order of the images does not."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from edgekd.errors import ModelError
from edgekd.quantization.calibration_set import CalibrationSet, ImagesDigest, graph_digest
from edgekd.quantization.placement import insert


def _digest(*batches: np.ndarray) -> str:
    seen = ImagesDigest()
    passed = list(seen.passing(batches))
    assert all(one is other for one, other in zip(passed, batches, strict=True))
    assert seen.count == sum(map(len, batches))
    return seen.hexdigest()


def test_one_changed_value_of_one_image_changes_the_digest_and_their_order_does_not():
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    first = _digest(images)
    assert _digest(images[3:], images[2::-1]) == first
    other = images.copy()
    other[4, 1, 2, 3] += 1e-6
    assert len({first, _digest(other), _digest(images[:5]), _digest(np.concatenate([images, images[:1]]))}) == 4
    assert _digest(images.reshape(6, 3, 4, 16)) != first


def _graph(*layers: nn.Module) -> str:
    return graph_digest(insert(nn.Sequential(*layers)).model)


def test_the_graph_is_told_by_what_it_computes_and_not_by_its_weights():
    first = _graph(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert _graph(nn.Conv2d(3, 4, 3), nn.ReLU()) == first
    assert _graph(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)) != first


def test_every_part_counts_in_the_name_and_another_network_is_refused():
    network = insert(nn.Conv2d(3, 4, 3)).model
    record = CalibrationSet(
        images="1" * 64, count=64, chosen="all", method="mse", network="2" * 64, graph=graph_digest(network)
    )
    changes = [
        {"images": "3" * 64}, {"count": 65}, {"chosen": "the first"}, {"method": "auto"},
        {"network": "4" * 64}, {"graph": "5" * 64},
    ]  # fmt: skip
    assert len({record.name, *(record.model_copy(update=each).name for each in changes)}) == 7
    record.require_network("2" * 64, owner="c")
    record.require_graph(network)
    with pytest.raises(ModelError, match=r"calibration of c is stale(?s:.)*calibrated for 2222"):
        record.require_network("4" * 64, owner="c")
    with pytest.raises(ModelError, match="is stale: its network has another graph"):
        record.require_graph(insert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).model)
