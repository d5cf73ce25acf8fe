"""Exported models: ONNX graphs with what is known of them."""

from __future__ import annotations

from pathlib import Path

from edgekd.store.artifacts import Artifact


class OnnxModel(Artifact):
    """`model.onnx` with its precision, opset and the report of its numerics against the torch model."""

    kind = "onnx-model"

    @property
    def graph(self) -> Path:
        return self.path / "model.onnx"

    @property
    def precision(self) -> str:
        return str(self.manifest.details["precision"])

    @property
    def heads(self) -> dict[str, list[str]]:
        """The classes of each further head, by its name; their logits are the last ones, in this order."""
        return dict(self.manifest.details.get("heads", {}))
