from __future__ import annotations

import shutil

import pytest
from pydantic import ValidationError

from edgekd.errors import ArtifactError
from edgekd.export.onnx_model import OnnxDetails, OnnxModel


def test_what_was_exported_is_read_back_from_its_folder(exported):
    student, models = exported
    for name, model in models.items():
        again = OnnxModel.load(model.path)
        assert again.digest == model.digest and again.details == model.details
        assert (again.precision, dict(again.heads)) == (name, {})
        assert (again.details.input, again.details.output) == ("input", "logits")
        assert again.graph == model.path / "model.onnx" and again.graph.is_file()
    assert models["fp32"].details.source == student.digest
    assert models["fp16"].details.source == models["fp32"].digest


def test_a_changed_graph_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported[1]["fp32"].path, tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        OnnxModel.load(folder)


def test_details_that_lack_a_field_are_refused(exported):
    details = exported[1]["fp32"].details.model_dump(mode="json")
    assert OnnxDetails.model_validate(details) == exported[1]["fp32"].details
    del details["opset"]
    with pytest.raises(ValidationError, match="opset"):
        OnnxDetails.model_validate(details)
