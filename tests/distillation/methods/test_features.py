"""What the losses on features share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distillation.methods._features import comparable, fits, maps, through, unit, vectors, without_batch


def test_shapes_come_with_or_without_the_batch():
    assert without_batch((2, 3, 4, 4)) == without_batch((3, 4, 4)) == (3, 4, 4)
    assert without_batch((2, 3)) == without_batch((3,)) == (3,)
    with pytest.raises(ValueError, match="a map .* or a vector"):
        without_batch((1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="flow needs maps"):
        maps([(3, 4, 4), (3,)], "flow")


def test_a_map_beside_a_vector_is_averaged_over_its_positions():
    feature = torch.arange(8.0).view(1, 2, 2, 2)
    assert vectors(feature).tolist() == [[1.5, 5.5]]
    student, teacher = comparable(feature, torch.ones(1, 2, requires_grad=True))
    assert student.tolist() == [[1.5, 5.5]] and not teacher.requires_grad


def test_maps_are_averaged_down_to_the_smaller_height_and_the_smaller_width():
    student, teacher = comparable(torch.ones(1, 2, 4, 2), torch.ones(1, 3, 2, 6))
    assert student.shape[2:] == teacher.shape[2:] == (2, 2)


def test_the_wider_precision_of_both_is_used():
    student, teacher = comparable(torch.ones(1, 2).half(), torch.ones(1, 2).double())
    assert student.dtype == teacher.dtype == torch.float64
    assert fits(torch.ones(1, 2).half(), nn.Linear(2, 2)).dtype == torch.float32


def test_a_single_sample_passes_batch_norm_by_its_running_statistics():
    layers = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).train()
    one = through(layers, torch.ones(1, 2, 1, 1))
    assert one.isfinite().all() and layers.training
    assert layers[1].num_batches_tracked == 0


def test_rows_of_unit_length_and_a_row_of_zeros():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e30, 4e30]], requires_grad=True)
    lengths = unit(rows)
    torch.testing.assert_close(lengths.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, 0.8]]))
    lengths.sum().backward()
    assert rows.grad.isfinite().all()
