"""Tiny graphs and bundles, made on the spot."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from edgekd import plugins
from edgekd.runtime.bundle import checksum
from edgekd.store.artifacts import Artifact


def write_linear_onnx(path: Path, weight: np.ndarray, *, side: int, opset: int = 20) -> Path:
    """logits = flatten(input) @ weight, weight (3 * side * side, C), dynamic batch."""
    onnx = pytest.importorskip("onnx", reason="the device side is tested without the ONNX tools too")
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def write_small_onnx(path: Path, shape: Sequence[int | str]) -> Path:
    """One convolution and one Gemm that fits images of 8 x 8, whatever the declared shape allows."""
    onnx = pytest.importorskip("onnx", reason="the device side is tested without the ONNX tools too")
    helper = onnx.helper
    generator = np.random.default_rng(0)
    weights = {"kernel": (5, 3, 3, 3), "matrix": (5 * 6 * 6, 4)}
    initialisers = [
        onnx.numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"]),
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "graph", [image], [scores], initialisers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


A = TypeVar("A", bound=Artifact)


def resealed(artifact: A, folder: Path, **changes: object) -> A:
    """A copy of an artifact in a new folder, with other details."""
    shutil.copytree(artifact.path, folder)
    details = artifact.details.model_copy(update=changes)
    return type(artifact).seal(folder, details=details, metrics=artifact.metrics)


def seal_bundle(folder: Path, manifest: dict) -> None:
    """Write bundle.json with the digests of what lies there now."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "bundle.json"]
    digests = {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    manifest["files"] = {name: {"sha256": value} for name, value in digests.items()}
    write_bundle_json(folder, manifest)


def write_bundle_json(folder: Path, manifest: dict) -> None:
    """Write bundle.json as it is given, with the checksum that belongs to it."""
    (folder / "bundle.json").write_text(json.dumps({**manifest, "checksum": checksum(manifest)}))


def added_plugin(monkeypatch: pytest.MonkeyPatch, kind: str, plugin: Any) -> Any:
    """Make an object a plugin of its kind, under its own name, as a file in the kind's folder would."""
    names, load = plugins.names, plugins.load
    known = {kind: {plugin.name}}
    monkeypatch.setattr(plugins, "names", lambda each: tuple(sorted({*names(each), *known.get(each, ())})))
    found = {(kind, plugin.name): plugin}
    monkeypatch.setattr(plugins, "load", lambda each, name, **more: found.get((each, name)) or load(each, name, **more))
    return plugin
