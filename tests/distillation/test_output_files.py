"""The files of stored teacher outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distillation.output_files import OutputWriter, compress, spread
from edgekd.errors import ModelError
from edgekd.recipe.settings import OutputSettings


def test_classes_that_top_k_leaves_out_share_the_rest_evenly():
    # Of four classes two are kept, with 1/2 and 1/4: each other has 1/8.
    logits = torch.tensor([[0.25, 0.15, 0.5, 0.1]]).log() + 3.0
    top, classes = compress(logits, 2)
    assert classes.tolist() == [[2, 0]]
    torch.testing.assert_close(top.exp(), torch.tensor([[0.5, 0.25, 0.25]]))
    torch.testing.assert_close(spread(top, classes, 4).exp(), torch.tensor([[0.25, 0.125, 0.5, 0.125]]))


def test_a_confident_teachers_tail_survives_half_precision():
    # A tail of 1e-5 over 98 classes: what is left of 1 would be lost in the rounding of the others.
    logits = torch.zeros(1, 100)
    logits[0, :2] = torch.tensor([16.0, 14.0])
    top, classes = compress(logits, 2)
    read = spread(top.half().float(), classes, 100)
    torch.testing.assert_close(read, logits.log_softmax(1), atol=0.01, rtol=1e-3)


def test_keeping_every_class_leaves_nothing_for_others():
    top, classes = compress(torch.tensor([[1.0, 3.0]]), 2)
    stored = top.clamp_min(torch.finfo(torch.float16).min).half().float()
    read = spread(stored, classes, 2)
    torch.testing.assert_close(read, torch.tensor([[1.0, 3.0]]).log_softmax(1), atol=1e-3, rtol=1e-3)


def test_logits_beyond_half_precision_are_refused(tmp_path):
    writer = OutputWriter(tmp_path, 2, 3, OutputSettings(views=1))
    with pytest.raises(ModelError, match=r"too large(?s:.)*1e\+05(?s:.)*top_k"):
        writer.write(0, np.arange(2), torch.full((2, 3), 1e5))
