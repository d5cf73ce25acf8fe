"""A graph on which the engine crashes ends no run: what is uncommon is opened in a process of its own first."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgekd.errors import BackendError, ExportError
from edgekd.export import opening
from edgekd.export.half import to_float16
from edgekd.export.onnx import graph_of, write
from edgekd.runtime.preprocess import InputShape


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture(scope="module")
def attention() -> onnx.ModelProto:
    torch.manual_seed(0)
    return graph_of(_Attention().eval(), InputShape(3, 32, 32), 17)


def test_what_survives_is_opened_and_a_crash_is_an_error(attention, tmp_path):
    """ONNX Runtime 1.3x dies with SIGSEGV on attention in float16 on a CPU; a version that does not is right, too."""
    with opening.open_first(write(attention, tmp_path), as_written=False) as session:
        assert session.bind(np.zeros((3, 3, 32, 32), np.float32))().shape == (3, 4)
    half, _ = to_float16(attention, np.zeros((2, 3, 32, 32), np.float32))
    (tmp_path / "half").mkdir()
    file = write(half, tmp_path / "half")
    opened = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    if subprocess.run([sys.executable, "-c", opened, str(file)], check=False).returncode < 0:
        with pytest.raises(ExportError, match=r"ONNX Runtime \S+ crashes on this graph\n  found: SIG\w+ (?s:.)*next: "):
            opening.open_first(file, as_written=False)
    else:
        opening.open_first(file, as_written=False).close()


def test_only_uncommon_operators_take_a_process(exported, attention, tmp_path):
    assert all(opening._is_common(model.graph) for model in exported[1].values())
    assert not opening._is_common(write(attention, tmp_path))


def test_a_crash_while_it_computes_and_one_that_never_ends(attention, tmp_path, monkeypatch):
    file = write(attention, tmp_path)
    monkeypatch.setattr(opening, "_CODE", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})")
    with pytest.raises(ExportError, match="SIGILL"):
        opening.open_first(file, as_written=True)
    monkeypatch.setattr(opening, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(opening, "_SECONDS", 0.5)
    with pytest.raises(ExportError, match=r"does not come to an end(?s:.)*more than 0.5 s"):
        opening.open_first(file, as_written=True)


def test_what_the_engine_refuses_has_its_own_message(tmp_path):
    given, returned = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 2)) for name in "xy")
    node, opset = helper.make_node("NotThere", ["x"], ["y"], domain="com.other"), helper.make_opsetid("com.other", 1)
    graph = helper.make_graph([node], "g", [given], [returned])
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(BackendError, match="cannot load"):
        opening.open_first(tmp_path / "x.onnx", as_written=False)
