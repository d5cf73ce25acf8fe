"""The loss is that on evenly drawn training images, the right answers are the validation split's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgekd.data.reader import open_reader
from edgekd.models import checkpoint as checkpoints
from edgekd.pruning.images import losses_of, probes_of


def test_the_losses_of_a_small_split_are_those_of_all_of_its_images(exported, small_digits):
    network = checkpoints.load(exported[0]).eval()
    reader = open_reader(small_digits, "train")
    images, labels = (torch.from_numpy(each) for each in next(iter(reader.batches(size=len(reader)))))
    with torch.no_grad():
        expected = float(functional.cross_entropy(network(images), labels, reduction="sum"))
        found = [float(loss) for loss in losses_of(small_digits)(network)]
    counts = [min(32, len(reader) - start) for start in range(0, len(reader), 32)]
    assert sum(loss * count for loss, count in zip(found, counts, strict=True)) == pytest.approx(expected, rel=1e-4)


def test_right_answers_are_the_labels(small_digits):
    probes = probes_of(small_digits)
    reader = open_reader(small_digits, "validation")
    # 128 of 160, from the first to the last.
    rows = [place * (len(reader) - 1) // 127 for place in range(128)]
    labels = torch.from_numpy(reader.split.labels[rows])
    assert probes.correct is not None and sum(map(len, probes.images)) == len(labels) < len(reader)
    assert bool(probes.correct(functional.one_hot(labels, 10).double()).all())
    assert not bool(probes.correct(functional.one_hot((labels + 1) % 10, 10).double()).any())
