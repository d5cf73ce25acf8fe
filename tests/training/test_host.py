from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import UsageError
from edgekd.runtime.preprocess import InputShape
from edgekd.training import host
from edgekd.training.host import has_depthwise, resolve_precision


def test_depthwise_networks_train_in_single_precision_on_a_cpu():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    cpu = torch.device("cpu")
    assert has_depthwise(depthwise) and resolve_precision("auto", depthwise, cpu) == "fp32"
    assert resolve_precision("bf16", depthwise, cpu) == "bf16"


@pytest.mark.parametrize(("side", "trains_in"), [(8, "fp32"), (16, "bf16")])
def test_a_stride_larger_than_its_input_is_not_trained_in_bf16_on_a_cpu(monkeypatch, side, trains_in):
    """PyTorch leaves such a convolution's weight gradient unwritten."""
    monkeypatch.setattr(host, "cpu_has_bf16", lambda: True)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten())
    cpu = torch.device("cpu")
    assert host.training_precision("auto", model, cpu, InputShape(3, side, side)) == trains_in
    if trains_in == "fp32":
        with pytest.raises(UsageError, match="wrong gradients on a CPU for 1"):
            host.training_precision("bf16", model, cpu, InputShape(3, side, side))
    assert host.training_precision("fp32", model, cpu, InputShape(3, side, side)) == "fp32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_trains_in_bf16_where_it_can():
    expected = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    assert resolve_precision("auto", torch.nn.Linear(1, 1), torch.device("cuda")) == expected
