"""What a narrower network keeps of the full one: of what is counted, of its file, of the time it takes on a device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import nn

from edgekd.bench.interleaved import Comparison, compare_latency
from edgekd.export.onnx import graph_of, write
from edgekd.pruning.channels import Channels, Shapes
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import digest


class Meter(Protocol):
    """Tells which fraction of the full network a narrower one keeps.

    Attributes:
        title: what it is a fraction of, as in "0.5 of the MACs".
        unit: of base(); empty for what is counted.
        tolerance: how near to a target, relative to it, ends the search; 0 for what is counted.
    """

    @property
    def title(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def tolerance(self) -> float: ...

    def kept(self, channels: Channels, shapes: Shapes) -> float:
        """The fraction.

        Args:
            channels: the full network.
            shapes: those of the narrower one that are smaller.

        Raises:
            ModelError, ExportError, BenchError, BackendError: the narrower network cannot be measured.
        """
        ...

    def base(self, channels: Channels) -> float:
        """The full network's own value: a number, 10^6 bytes or milliseconds. Raises as kept()."""
        ...


@dataclass(frozen=True)
class Counted:
    """MACs or parameters, counted from the shapes."""

    measure: str
    unit: str = ""
    tolerance: float = 0.0

    @property
    def title(self) -> str:
        return {"macs": "MACs", "parameters": "parameters"}[self.measure]

    def kept(self, channels: Channels, shapes: Shapes) -> float:
        return channels.kept(shapes, self.measure)

    def base(self, channels: Channels) -> float:
        return float(channels.cost[self.measure])


@dataclass
class FileSize:
    """The size of the exported fp32 graph.

    Attributes:
        folder: where graphs are written to; emptied by its owner.
        opset: of the graphs.
    """

    folder: Path
    opset: int
    title: str = "size of the fp32 file"
    unit: str = "MB"
    tolerance: float = 0.0

    def kept(self, channels: Channels, shapes: Shapes) -> float:
        return self._megabytes(channels, shapes) / self.base(channels)

    def base(self, channels: Channels) -> float:
        return self._megabytes(channels, {})

    def _megabytes(self, channels: Channels, shapes: Shapes) -> float:
        return _exported(channels, shapes, self.folder, self.opset).stat().st_size / 1e6


@dataclass
class Latency:
    """The time that one image takes in the exported fp32 graph, measured in turns with the full network's.

    Attributes:
        folder: where graphs are written to; emptied by its owner.
        opset: of the graphs.
        device: where it is measured.
        threads: of the engine; None: one per usable core.
        comparisons: what was measured, by network.
    """

    folder: Path
    opset: int
    device: str = "this-machine"
    threads: int | None = None
    title: str = "latency"
    unit: str = "ms"
    tolerance: float = 0.05
    comparisons: dict[str, Comparison] = field(default_factory=dict)

    def kept(self, channels: Channels, shapes: Shapes) -> float:
        return self.comparison(channels, shapes).ratios[1]

    def base(self, channels: Channels) -> float:
        return self.comparison(channels, {}).milliseconds[0]

    def directly(self, model: nn.Module, narrow: nn.Module, shape: InputShape) -> Comparison:
        """Of two networks that more than one step lies between."""
        files = []
        for name, network in (("model", model), ("narrow", narrow)):
            files.append(write(graph_of(network, shape, self.opset), self.folder, f"{name}.onnx"))
        return compare_latency(files, device=self.device, threads=self.threads)

    def comparison(self, channels: Channels, shapes: Shapes) -> Comparison:
        """Of the full network, first, with the narrower one."""
        key = _key(shapes)
        if key not in self.comparisons:
            files = [_exported(channels, each, self.folder, self.opset) for each in ({}, shapes)]
            self.comparisons[key] = compare_latency(files, device=self.device, threads=self.threads)
        return self.comparisons[key]


def _exported(channels: Channels, shapes: Shapes, folder: Path, opset: int) -> Path:
    """The graph of a narrower network, with other weights: they have no say in its size or speed."""
    file = folder / f"{_key(shapes)}.onnx"
    if not file.exists():
        write(graph_of(channels.sample(shapes), channels.shape, opset), folder, file.name)
    return file


def _key(shapes: Shapes) -> str:
    return digest({name: list(shape) for name, shape in shapes.items()})[:16]
