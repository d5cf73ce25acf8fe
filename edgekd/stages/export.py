"""ONNX graphs of every network, each compared with the network or graph that it was converted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd import plugins
from edgekd.data.dataset import Dataset
from edgekd.export import onnx as exports
from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.variant import Variant
from edgekd.models.checkpoint import Checkpoint
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.stages import _code, _facts
from edgekd.stages.quantize import PTQ, QUANTIZED, Quantized


@dataclass(frozen=True)
class Exported:
    """All exported graphs, and the model of each variant in the bundle."""

    models: Mapping[ModelId, OnnxModel]
    shipped: Mapping[str, ModelId]


def _graph_facts(model: OnnxModel) -> list[str]:
    numerics = model.metrics["numerics"]
    agreement = f"predicts as {numerics['reference']} on {numerics['agreement']:.1%} of the images"
    return [agreement, _facts.megabytes(model.graph.stat().st_size)]


STAGE = Stage("export", "ONNX", version=exports.VERSION, compares=True, facts=_graph_facts)


def export(run: Run, networks: Mapping[Role, Checkpoint], quantized: Quantized | None, data: Dataset) -> Exported:
    """Export every network to the variants that are made from its checkpoint, and the final network to all variants.

    Args:
        networks: the float networks, by their role; the last of them ships.
        quantized: the final network with int8 quantizers; the calibrated network is exported too, for comparison.
        data: whose validation images the graphs are compared on.
    """
    final = list(networks)[-1]
    shipped = {name: QUANTIZED if variants.find(name).needs_quantize else final for name in run.recipe.variants}
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


def _quantized(run: Run, quantized: Quantized | None) -> dict[Role, Checkpoint]:
    if quantized is None or run.recipe.quantize is None:
        return {}
    compared = quantized.trained is not quantized.calibrated and run.recipe.quantize.baseline
    return {**({PTQ: quantized.calibrated} if compared else {}), QUANTIZED: quantized.trained}


def _graph(run: Run, role: Role, variant: Variant[Any], source: Checkpoint | OnnxModel, data: Dataset) -> OnnxModel:
    settings = run.recipe.export
    return run.stage(
        STAGE,
        OnnxModel,
        name=f"{STAGE.name}-{ModelId(role.name, variant.name)}",
        title=f"{role.title}: ONNX {variant.title}",
        settings={
            "opset": settings.opset,
            "tolerance": settings_json(settings.tolerance_of(variant.name)),
            **plugins.code_key("variant", variant.name),
            **_code.code_of_reference(),
        },
        inputs={"source": source, "data": data},
        make=lambda out: variant.export(source, data, settings, out),
    )
