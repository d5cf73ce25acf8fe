"""Exported models: ONNX graphs and their details."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekd.store.artifacts import Artifact, Details


class OnnxDetails(Details):
    """What describes an exported graph.

    Attributes:
        input, output: the tensors' names.
        heads: the classes of each additional head, by its name.
        source: the digest of the artifact that it was converted from.
    """

    precision: str
    opset: int
    input: str
    output: str
    heads: dict[str, tuple[str, ...]]
    source: str


class OnnxModel(Artifact[OnnxDetails]):
    """`model.onnx` with its precision, opset and the report of its numerics against the torch model."""

    kind = "onnx-model"

    @property
    def graph(self) -> Path:
        return self.path / "model.onnx"

    @property
    def precision(self) -> str:
        return self.details.precision

    @property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each additional head, by its name; their logits are the last ones, in this order."""
        return self.details.heads
