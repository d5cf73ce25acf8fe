from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekd.errors import ExportError, ModelError
from edgekd.models.edits.input import apply
from edgekd.models.onnx_network import OnnxNetwork

CLASSES = 5


def write(
    folder: Path,
    *,
    batch: Any = "batch",
    last: bool = False,
    softmax: bool = False,
    names: tuple[str, str] = ("input", "logits"),
    more: bool = False,
    kind: int = TensorProto.FLOAT,
    side: Any = 8,
) -> Path:
    """Mean colours through a matrix: 3 channels of 8x8 to 5 logits, by hand."""
    weight = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    axes = [1, 2] if last else [2, 3]
    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    end = "product" if softmax else names[1]
    nodes = [
        helper.make_node("ReduceMean", [names[0]], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], [end]),
        *([helper.make_node("Softmax", [end], [names[1]], axis=1)] if softmax else []),
    ]
    outputs = [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, CLASSES])]
    if more:
        outputs.insert(0, helper.make_tensor_value_info("mean", TensorProto.FLOAT, [batch, 3]))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info(names[0], kind, shape)],
        outputs,
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "teacher.onnx")
    return folder / "teacher.onnx"


def expected(images: torch.Tensor) -> torch.Tensor:
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32))
    return images.mean((2, 3)) @ weight


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"last": True},
        {"batch": 3},
        {"batch": 1, "last": True},
        {"names": ("pixels", "scores")},
        {"more": True},
        {"side": "side"},
    ],
)
def test_a_file_answers_whatever_its_layout(tmp_path: Path, form: dict[str, Any]) -> None:
    network = OnnxNetwork.read(write(tmp_path, **form), CLASSES)
    images = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(network(images), expected(images), atol=1e-5)
    assert torch.equal(copy.deepcopy(network)(images), network(images))


def test_probabilities_become_logits_with_the_same_softmax(tmp_path: Path) -> None:
    network = OnnxNetwork.read(write(tmp_path, softmax=True), CLASSES)
    images = torch.randn(4, 3, 8, 8)
    assert network.log
    assert torch.allclose(network(images).softmax(1), expected(images).softmax(1), atol=1e-6)


def test_its_cost_is_counted_in_the_graph(tmp_path: Path) -> None:
    assert OnnxNetwork.read(write(tmp_path, batch=2), CLASSES).cost() == {"parameters": 15, "macs": 15}


def test_it_rebuilds_from_its_state(tmp_path: Path) -> None:
    network = OnnxNetwork.read(write(tmp_path), CLASSES)
    rebuilt = OnnxNetwork(len(network.graph), CLASSES)
    rebuilt.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(rebuilt(images), network(images))


@pytest.mark.parametrize("form", [{}, {"last": True}, {"softmax": True}, {"more": True}])
def test_as_a_graph_it_takes_the_datas_inputs(tmp_path: Path, form: dict[str, Any]) -> None:
    network = OnnxNetwork.read(write(tmp_path, **form), CLASSES)
    given = {"image_size": [4, 6], "mean": [0.5], "std": [0.25]}
    own = {"image_size": [8, 8], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    apply(network, {"edit": "input", "given": given, "own": own})
    graph = network.as_graph()
    onnx.checker.check_model(graph, full_check=True)
    images = torch.randn(3, 1, 4, 6)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (found,) = session.run(None, {"input": images.numpy()})
    assert np.allclose(found, network(images).numpy(), atol=1e-5)


def test_what_does_not_take_images_or_has_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no single output with one value per class"):
        OnnxNetwork.read(write(tmp_path), CLASSES + 1)
    with pytest.raises(ModelError, match="does not take images"):
        OnnxNetwork.read(write(tmp_path, kind=TensorProto.DOUBLE), CLASSES)


def test_a_fixed_batch_cannot_be_exported_and_a_broken_file_not_read(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fixed batch"):
        OnnxNetwork.read(write(tmp_path, batch=2), CLASSES).as_graph()
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        OnnxNetwork.read(tmp_path / "broken.onnx", CLASSES)


def test_it_has_no_parameters() -> None:
    assert not list(OnnxNetwork(8, 2).parameters()) and isinstance(OnnxNetwork(8, 2), nn.Module)


def test_outputs_between_zero_and_one_are_noticed_for_images_of_several_labels(tmp_path: Path) -> None:
    assert OnnxNetwork.read(write(tmp_path, softmax=True), CLASSES).probabilities
    assert not OnnxNetwork.read(write(tmp_path), CLASSES).probabilities
