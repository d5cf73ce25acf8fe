"""ONNX graphs of every network, each proven against what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.data.dataset import Dataset
from edgekd.export import onnx as exports
from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.stages import _facts
from edgekd.stages.quantize import PTQ, QUANTIZED, Quantized


@dataclass(frozen=True)
class Exported:
    """Every graph, and for the bundle's variants the model that each is."""

    models: Mapping[ModelId, OnnxModel]
    shipped: Mapping[str, ModelId]


def _of_graph(model: OnnxModel) -> list[str]:
    numerics = model.metrics["numerics"]
    agreement = f"agrees with {numerics['reference']} on {numerics['agreement']:.1%}"
    return [agreement, _facts.megabytes(model.graph.stat().st_size)]


STAGE = Stage("export", "ONNX", version=exports.VERSION, compares=True, facts=_of_graph)


def export(run: Run, networks: Mapping[Role, Checkpoint], quantized: Quantized | None, data: Dataset) -> Exported:
    """Every network in the variants that are made of its checkpoint, and what ships in all of the recipe's.

    Args:
        networks: those in float, by their role; the last of them ships.
        quantized: the same with int8 quantizers; also exported only calibrated, to compare, where it was trained.
    """
    shipped = _shipped(run, list(networks)[-1])
    models: dict[ModelId, OnnxModel] = {}
    for variant in variants.ordered(run.recipe.variants):
        if variant.base is not None:
            role = shipped[variant.name]
            models[ModelId(role.name, variant.name)] = _graph(
                run, role, variant, models[ModelId(role.name, variant.base)], data
            )
            continue
        sources = _quantized(run, quantized) if variant.needs_quantize else networks
        for role, checkpoint in sources.items():
            models[ModelId(role.name, variant.name)] = _graph(run, role, variant, checkpoint, data)
    return run.finish(STAGE, Exported(models, {name: ModelId(role.name, name) for name, role in shipped.items()}))


def _shipped(run: Run, final: Role) -> dict[str, Role]:
    """The bundle's variants, each with the network that it is of."""
    return {name: QUANTIZED if variants.find(name).needs_quantize else final for name in run.recipe.variants}


def _quantized(run: Run, made: Quantized | None) -> dict[Role, Checkpoint]:
    if made is None or run.recipe.quantize is None:
        return {}
    compared = made.trained is not made.calibrated and run.recipe.quantize.baseline
    return {**({PTQ: made.calibrated} if compared else {}), QUANTIZED: made.trained}


def _graph(run: Run, role: Role, variant: Variant[Any], source: Checkpoint | OnnxModel, data: Dataset) -> OnnxModel:
    settings = run.recipe.export
    return run.stage(
        STAGE,
        OnnxModel,
        name=f"{STAGE.name}-{ModelId(role.name, variant.name)}",
        title=f"{role.title}: ONNX {variant.title}",
        settings={"opset": settings.opset, "tolerance": settings_json(settings.tolerance_of(variant.name))},
        inputs={"source": source, "data": data},
        make=lambda out: variant.convert(source, data, settings, out),
    )
