"""ONNX graphs of every network, each proven against what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgekd.data.dataset import Dataset
from edgekd.export import onnx as exports
from edgekd.export.onnx_model import OnnxModel
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import ExportSettings, Variant
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.stages import _facts
from edgekd.stages.quantize import PTQ, QUANTIZED, Quantized
from edgekd.store.artifacts import Artifact

Source = TypeVar("Source", bound=Artifact)


@dataclass(frozen=True)
class Exported:
    """Every graph.

    Attributes:
        models: named role-variant.
        shipped: the bundle's variants, each with the name of its model.
    """

    models: Mapping[str, OnnxModel]
    shipped: Mapping[str, str]


def _of_graph(model: OnnxModel) -> list[str]:
    numerics = model.metrics["numerics"]
    agreement = f"agrees with {numerics['reference']} on {numerics['agreement']:.1%}"
    return [agreement, _facts.megabytes(model.graph.stat().st_size)]


STAGE = Stage("export", "ONNX", version=exports.VERSION, compares=True, facts=_of_graph)


def export(run: Run, networks: Mapping[Role, Checkpoint], quantized: Quantized | None, data: Dataset) -> Exported:
    """All networks in fp32, and the one that ships in the recipe's variants.

    Args:
        networks: those in float, by their role; the last of them ships.
        quantized: the same with int8 quantizers; also exported only calibrated, to compare, where it was trained.
    """
    variants, settings, final = run.recipe.variants, run.recipe.quantize, list(networks)[-1]
    models = {
        f"{role.name}-fp32": _graph(run, role, "fp32", exports.onnx_from_checkpoint, checkpoint, data)
        for role, checkpoint in networks.items()
    }
    if "fp16" in variants:
        models[f"{final.name}-fp16"] = _graph(
            run, final, "fp16", exports.fp16_from_fp32, models[f"{final.name}-fp32"], data
        )
    if quantized is not None and settings is not None:
        if quantized.trained is not quantized.calibrated and settings.baseline:
            models["ptq-int8"] = _graph(run, PTQ, "int8", exports.int8_from_checkpoint, quantized.calibrated, data)
        models["quantized-int8"] = _graph(run, QUANTIZED, "int8", exports.int8_from_checkpoint, quantized.trained, data)
        if "int8-x64" in variants:
            models["quantized-int8-x64"] = _graph(
                run, QUANTIZED, "int8-x64", exports.x64_from_int8, models["quantized-int8"], data
            )
    roles = {"fp32": final, "fp16": final, "int8": QUANTIZED, "int8-x64": QUANTIZED}
    shipped: dict[str, str] = {variant: f"{roles[variant].name}-{variant}" for variant in variants}
    return run.finish(STAGE, Exported(models, shipped))


def _graph(
    run: Run,
    role: Role,
    variant: Variant,
    convert: Callable[[Source, Dataset, ExportSettings, Path], OnnxModel],
    source: Source,
    data: Dataset,
) -> OnnxModel:
    settings = run.recipe.export
    return run.stage(
        STAGE,
        OnnxModel,
        name=f"export-{role.name}-{variant}",
        title=f"{role.title}: ONNX {variant}",
        settings={"opset": settings.opset, "tolerance": settings_json(settings.tolerance_of(variant))},
        inputs={"source": source, "data": data},
        make=lambda out: convert(source, data, settings, out),
    )
