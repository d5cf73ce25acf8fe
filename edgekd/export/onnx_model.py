"""Exported models: ONNX graphs and their details."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekd.store.artifacts import Artifact, Details
from edgekd.store.records import Count, Measured, Metrics, Share, Span


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


class Allowed(Measured):
    """The tolerances that the graph was accepted by."""

    difference: Span
    agreement: Share


class Numerics(Measured):
    """How the graph's logits differ from the reference's on real images; see edgekd.export.numerics."""

    max_difference: Span
    mean_difference: Span
    largest_logit: Span
    agreement: Share
    agreement_of_all: Share
    near_ties: Count
    reference: str
    images: Count
    tolerance: Allowed
    unstable: Span | None = None


class Subnormals(Measured):
    """See edgekd.export.subnormals.Flushed."""

    weights: Count = 0
    scales: Count = 0


class OnnxMetrics(Metrics):
    numerics: Numerics
    subnormals: Subnormals = Subnormals()


class OnnxModel(Artifact[OnnxDetails]):
    """`model.onnx` with its precision, opset and the report of its numerics against the torch model."""

    kind = "onnx-model"
    measured = OnnxMetrics

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
