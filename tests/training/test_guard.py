from __future__ import annotations

import pytest
import torch

from edgekd.errors import NonFiniteLossError, OutOfMemoryError, TrainingError
from edgekd.training.guard import Guard, clear_errors, clear_memory_errors


def test_the_guard_remembers_the_first_bad_step():
    guard = Guard(torch.device("cpu"), epoch=0, first_step=1)
    guard._on_cpu = False  # as on a GPU, where the check comes late
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step, value in enumerate([good, good, bad, good, bad], start=1):
        guard.watch(step, value)
    with pytest.raises(NonFiniteLossError, match=r"step 4 (?s:.)*none: it happened in the first epoch"):
        guard.check()


def test_a_batch_norm_on_one_image_is_one_clear_message():
    norm, image = torch.nn.BatchNorm2d(4), torch.zeros(1, 4, 1, 1)
    with pytest.raises(TrainingError, match=r"batches of one image(?s:.)*set batch_size to 8"):
        with clear_errors(1, torch.device("cpu")):
            norm(image)
    with pytest.raises(ValueError, match="another"), clear_errors(1, torch.device("cpu")):
        raise ValueError("another")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")]
)
def test_memory_that_runs_out_is_one_clear_message(error):
    with pytest.raises(OutOfMemoryError, match=r"a batch of 64(?s:.)*batch_size to 32"):
        with clear_memory_errors(64, torch.device("cpu")):
            raise error
