"""What a file in variants/ declares about a form in which networks are exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from edgekd.data.dataset import Dataset
from edgekd.export.onnx_model import OnnxModel
from edgekd.recipe.settings import ExportSettings, Tolerance
from edgekd.runtime.backends import Activations
from edgekd.store.artifacts import Artifact

Source = TypeVar("Source", bound=Artifact[Any])


@dataclass(frozen=True)
class Variant(Generic[Source]):
    """A form in which a network is exported; `Source` is what it is converted from.

    Attributes:
        name: the file's, with hyphens.
        title: for people, behind the network's name.
        note: what the file is, for the list of a bundle's files.
        unmeasured: where it is not measured although others are: why; a sentence without its full stop.
        precision: what the network computes in.
        activations: the type of the activations in the graph; a backend declares which of these it runs.
        checkpoint: which checkpoint the network comes from; a quantized one needs the recipe's quantize section.
        base: the variant of the same network whose graph is converted; None: the checkpoint itself is, and then every
            network of the run is exported in this form, to compare.
        compared_with: the variant that accuracies are compared with, which a recipe must have too.
        by_default: whether a recipe that names no variants gets it.
        tolerance: how far the graph may be from what it was converted from, on this machine; a recipe's
            export.tolerance replaces it.
        vector_tolerance: how far another engine or processor may be from the outputs that a bundle's vectors hold,
            relative to the largest.
        as_written: whether the reference backend must compute the graph as it is written, because its own kernels are
            made for another form of it.
        convert: writes the graph into an empty folder, which becomes the artifact, and proves it on the data's
            validation images. Raises ExportError where it cannot be written or computes something else.
    """

    name: str
    title: str
    note: str
    precision: Literal["fp32", "fp16", "int8"]
    activations: Activations
    tolerance: Tolerance
    vector_tolerance: float
    convert: Callable[[Source, Dataset, ExportSettings, Path], OnnxModel]
    checkpoint: Literal["float", "quantized"] = "float"
    base: str | None = None
    compared_with: str | None = None
    by_default: bool = True
    as_written: bool = False
    unmeasured: str | None = None

    @property
    def needs_quantize(self) -> bool:
        return self.checkpoint == "quantized"

    @property
    def rank(self) -> tuple[bool, bool, str]:
        """Sorts variants so that each is behind the one that it is converted from."""
        return self.needs_quantize, self.base is not None, self.name
