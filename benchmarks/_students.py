"""The networks that compression.py trains and compresses, each by the chain's own stages over one store."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import distillation
from _figures import Figure
from distillation import IMAGE_SETS, KD, Shown

from edgekd import schemes
from edgekd.bench.interleaved import compare_latency
from edgekd.data.dataset import Dataset
from edgekd.export.model_id import ModelId
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import from_mapping
from edgekd.runs import Role, Run
from edgekd.stages import data as data_stage
from edgekd.stages import train as train_stage
from edgekd.stages.distill import Continuation
from edgekd.stages.evaluate import evaluate
from edgekd.stages.export import Exported, export
from edgekd.stages.quantize import Quantized
from edgekd.store.store import Store

NETWORKS: Mapping[str, dict[str, Any]] = {
    "MobileNetV2": {"model": "torchvision/mobilenet_v2", "stem": "small"},
    "ShuffleNetV2 x1.0": {"model": "torchvision/shufflenet_v2_x1_0", "stem": "small"},
    "MobileNetV3-small": {"model": "torchvision/mobilenet_v3_small", "stem": "small"},
    "ResNet-20": {"model": "cifar/resnet20"},
}
_VIEWS = 4


@dataclass(frozen=True)
class Trained:
    """A distilled student, and what it is compressed with."""

    run: Run
    data: Dataset
    student: Checkpoint
    continuation: Continuation

    @property
    def teacher(self) -> Checkpoint:
        return self.continuation.teacher


def trained(network: Mapping[str, Any], seed: int, arguments: argparse.Namespace, **sections: Any) -> Trained:
    """The student of one seed; `sections` are those of the recipe that compress it."""
    outputs = {"store": "on", "views": _VIEWS}
    recipe = distillation.recipe(dict(network), seed, arguments, objective=KD, teacher_outputs=outputs)
    run = Run(from_mapping({**recipe, **sections}).settings, Store(arguments.out, Shown()))
    data = data_stage.data(run)
    teacher = train_stage.teacher(run, data)
    made = schemes.distill(run, teacher, data)
    return Trained(run, data, made.student, schemes.continuation(run, made, teacher, data))


def images_of(store: Store, seed: int, arguments: argparse.Namespace) -> Dataset:
    """The images alone."""
    recipe = distillation.recipe(NETWORKS["ResNet-20"], seed, arguments, objective=KD)
    return data_stage.data(Run(from_mapping(recipe).settings, store))


def exported(found: Trained, networks: Mapping[Role, Checkpoint], quantized: Quantized | None = None) -> Exported:
    """The graphs of networks; the last one is also exported with `quantized`'s scales."""
    return export(found.run, networks, quantized, found.data)


def accuracies(found: Trained, graphs: Exported) -> dict[ModelId, float]:
    """Percent of the test split, of the files in ONNX Runtime."""
    rows = evaluate(found.run, graphs.models, found.data).rows
    return {ModelId.of(row): 100.0 * row["accuracy"] for row in rows}


def latencies(files: Mapping[str, Path]) -> dict[str, float]:
    """Each file's time relative to the first one's, in turns, one thread."""
    ratios = compare_latency(list(files.values()), threads=1).ratios
    return dict(zip(files, ratios, strict=True))


# Of further training too, as in distillation.recipe().
FIXED = {"precision": "fp32", "memory_format": "channels_last"}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    if len(values) == 1 or len(set(values)) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


@dataclass(frozen=True)
class Part:
    """What a part of the benchmark found.

    Attributes:
        rows: everything that was measured, for --json.
        table: Markdown.
        figures: with their goals.
        note: what ran.
    """

    rows: Any
    table: str
    figures: Sequence[Figure] = ()
    note: str = ""


def what_ran(arguments: argparse.Namespace) -> str:
    images = IMAGE_SETS[arguments.images_from].title
    return (
        f"{images}, {arguments.images:,} training images, teacher {arguments.teacher} for {arguments.teacher_epochs} "
        f"epochs, students for {arguments.epochs}; seeds: {arguments.seeds}. Top-1"
    )
