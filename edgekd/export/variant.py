"""What a file in variants/ declares about a form in which networks are exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from edgekd.data.dataset import Dataset
from edgekd.export.onnx_model import OnnxModel
from edgekd.recipe.settings import ExportSettings, Tolerance
from edgekd.runtime.backends import Activations
from edgekd.store.artifacts import Artifact

Source = TypeVar("Source", bound=Artifact[Any])


@dataclass(frozen=True, kw_only=True)
class Variant(Generic[Source]):
    """A form in which a network is exported; `Source` is what it is converted from.

    Attributes:
        name: the file's name, with hyphens, filled in by edgekd.plugins.
        title: for people, shown after the network's name.
        note: describes the file in the list of a bundle's files.
        unmeasured: why its latency is not measured where that of others is; a sentence without its full stop.
        precision: of the network's computation.
        activations: the type of the activations in the graph; a backend declares which types it runs.
        checkpoint: which checkpoint is exported; "quantized" needs the recipe's quantize section.
        base: the variant whose graph is converted; None: the checkpoint is converted, and every network of the run is
            exported to this variant, for comparison.
        compared_with: the variant that its accuracy is compared with; a recipe must have that variant too.
        by_default: whether a recipe that names no variants has this one.
        tolerance: the largest accepted deviation of the graph from what it was converted from, and in the bundle of
            another engine or processor from the test vectors; a recipe's export.tolerance replaces it.
        as_written: whether the reference backend must compute the graph as it is written, because its fast kernels are
            made for another form of the graph.
        convert: what export() calls, with the variant itself as the first argument.
    """

    name: str = field(init=False, default="")
    title: str
    note: str
    precision: Literal["fp32", "fp16", "int8"]
    activations: Activations
    tolerance: Tolerance
    convert: Callable[[Variant[Source], Source, Dataset, ExportSettings, Path], OnnxModel]
    checkpoint: Literal["float", "quantized"] = "float"
    base: str | None = None
    compared_with: str | None = None
    by_default: bool = True
    as_written: bool = False
    unmeasured: str | None = None

    def export(self, source: Source, data: Dataset, settings: ExportSettings, out: Path) -> OnnxModel:
        """Write the graph, and verify it on the data's validation images.

        Args:
            source: the checkpoint, or the graph of the base variant.
            data: the data set.
            settings: of the export.
            out: an empty folder, which becomes the artifact.

        Raises:
            ExportError: it cannot be written, or its outputs differ.
        """
        return self.convert(self, source, data, settings, out)

    @property
    def needs_quantize(self) -> bool:
        return self.checkpoint == "quantized"

    @property
    def rank(self) -> tuple[bool, bool, str]:
        """A sort key that puts each variant after the one that it is converted from."""
        return self.needs_quantize, self.base is not None, self.name
