"""Counts what an engine computes on quantized values, and what it converts, in the graph that it makes of a file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekd.runtime.backends import Optimizer

_PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Fusion:
    """What an engine makes of a graph with Q/DQ pairs.

    Attributes:
        quantized: the number of operators that are computed on quantized values.
        dequantized: the number of operators that are computed in float, on values that are dequantized for them.
        conversions: the number of QuantizeLinear and DequantizeLinear that are left, each of which costs time.
    """

    quantized: int
    dequantized: int
    conversions: int

    @property
    def operators(self) -> int:
        """The number of operators on values that the file has in int8."""
        return self.quantized + self.dequantized

    @property
    def share(self) -> float:
        """Of the operators on quantized values, those that are computed as such; 0 in a graph without any."""
        return self.quantized / max(self.operators, 1)


def fusion_of(graph: Path, optimizer: Optimizer) -> Fusion:
    """Count in the graph that the engine makes of `graph` on this machine.

    Raises:
        BackendError: the engine refuses the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimized.onnx"
        optimizer.write(graph, written)
        nodes = onnx.load(written, load_external_data=False).graph.node
    floats = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    quantized = sum(optimizer.is_quantized(node.op_type) for node in nodes)
    dequantized = sum(node.op_type not in _PAIR and not floats.isdisjoint(node.input) for node in nodes)
    conversions = sum(node.op_type in _PAIR for node in nodes)
    return Fusion(quantized, dequantized, conversions)
