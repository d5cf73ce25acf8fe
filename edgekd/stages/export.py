"""ONNX graphs of every network, each compared with the network or graph that it was converted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd import plugins, units
from edgekd.data.dataset import Dataset
from edgekd.errors import ExportError
from edgekd.export import onnx as exports
from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.ranges import Kept
from edgekd.export.subnormals import Flushed
from edgekd.export.variant import Variant
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import RecipeSettings
from edgekd.runs import Role, Run, Stage, settings_json
from edgekd.runtime.backends import reference
from edgekd.runtime.importing import require_importable
from edgekd.stages import _code
from edgekd.stages.quantize import PTQ, QUANTIZED, Quantized


@dataclass(frozen=True)
class Exported:
    """All exported graphs, and the model of each variant in the bundle.

    Attributes:
        models: the graphs.
        shipped: by variant.
        left_out: one line for each graph that could not be made.
    """

    models: Mapping[ModelId, OnnxModel]
    shipped: Mapping[str, ModelId]
    left_out: tuple[str, ...] = ()


def _graph_facts(model: OnnxModel) -> list[str]:
    numerics = model.metrics["numerics"]
    agreement = f"predicts as {numerics['reference']} on {numerics['agreement_of_all']:.1%} of the images"
    flushed = Flushed(**model.metrics.get("subnormals", {}))
    kept = Kept.from_facts(model.metrics["float32"]).lines if "float32" in model.metrics else []
    return [units.size(model.graph.stat().st_size), agreement, *kept, *flushed.lines]


def _check_machine(recipe: RecipeSettings) -> None:
    """Import the engine that proves the graphs, in another process: a crash would end the run after its trainings.

    Raises:
        BackendError: there is none, or it cannot be imported.
    """
    require_importable(reference())


STAGE = Stage(
    "export", "ONNX", version=exports.VERSION, compares=True, facts=_graph_facts, check_machine=_check_machine
)


def export(run: Run, networks: Mapping[Role, Checkpoint], quantized: Quantized | None, data: Dataset) -> Exported:
    """Export every network to the variants that are made from its checkpoint, and the final network to all variants.

    A graph that cannot be made is left out with a warning, unless the bundle rests on it: the final network in the
    variant that others are derived from.

    Args:
        networks: the float networks, by their role; the last of them ships.
        quantized: the final network with int8 quantizers; the calibrated network is exported too, for comparison.
        data: whose validation images the graphs are compared on.

    Raises:
        ExportError: the final network cannot be exported.
    """
    final = list(networks)[-1]
    shipped = {name: QUANTIZED if variants.find(name).needs_quantize else final for name in run.recipe.variants}
    models: dict[ModelId, OnnxModel] = {}
    left_out: list[str] = []
    ordered = variants.ordered(run.recipe.variants)
    number, total = 0, sum(1 if each.base else len(_checkpoints(run, each, networks, quantized)) for each in ordered)
    for variant in ordered:
        for role, source in _sources(run, variant, networks, quantized, shipped, models).items():
            name, number = ModelId(role.name, variant.name), number + 1
            if source is None:
                left_out.append(f"{name} was left out, because {variant.base} was.")
                continue
            try:
                models[name] = _graph(run, role, variant, source, data, (number, total))
            except ExportError as error:
                if role is final and variant.base is None:
                    raise
                left_out.append(f"{name} was left out: {'; '.join(str(error).split(chr(10) + '  '))}.")
    run.warn(left_out)
    ships = {name: ModelId(role.name, name) for name, role in shipped.items() if ModelId(role.name, name) in models}
    return run.finish(STAGE, Exported(models, ships, tuple(left_out)))


def _sources(
    run: Run,
    variant: Variant[Any],
    networks: Mapping[Role, Checkpoint],
    quantized: Quantized | None,
    shipped: Mapping[str, Role],
    models: Mapping[ModelId, OnnxModel],
) -> Mapping[Role, Checkpoint | OnnxModel | None]:
    """What a variant is made from, by role; None for a graph that was left out."""
    if variant.base is not None:
        role = shipped[variant.name]
        return {role: models.get(ModelId(role.name, variant.base))}
    return _checkpoints(run, variant, networks, quantized)


def _checkpoints(
    run: Run, variant: Variant[Any], networks: Mapping[Role, Checkpoint], quantized: Quantized | None
) -> Mapping[Role, Checkpoint]:
    return _quantized(run, quantized) if variant.needs_quantize else networks


def _quantized(run: Run, quantized: Quantized | None) -> dict[Role, Checkpoint]:
    if quantized is None or run.recipe.quantize is None:
        return {}
    compared = quantized.trained is not quantized.calibrated and run.recipe.quantize.baseline
    return {**({PTQ: quantized.calibrated} if compared else {}), QUANTIZED: quantized.trained}


def _graph(
    run: Run,
    role: Role,
    variant: Variant[Any],
    source: Checkpoint | OnnxModel,
    data: Dataset,
    number_of: tuple[int, int],
) -> OnnxModel:
    settings, name = run.recipe.export, f"{STAGE.name}-{ModelId(role.name, variant.name)}"
    progress, (number, total) = run.progress(name), number_of

    def make(out: Path) -> OnnxModel:
        if progress is not None:
            progress(number - 1, total, f"graph {number} of {total}")
        return variant.export(source, data, settings, out)

    return run.stage(
        STAGE,
        OnnxModel,
        name=name,
        title=f"{role.title}: ONNX {variant.title}",
        settings={
            "opset": settings.opset,
            "tolerance": settings_json(settings.tolerance_of(variant.name)),
            **plugins.code_key("variant", variant.name),
            **_code.code_of_reference(),
        },
        inputs={"source": source, "data": data},
        make=make,
    )
