"""The order in which each engine prefers a bundle's variants: measured, else by what it fuses, else by rule."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.export import variants
from edgekd.export.fusion import Fusion, fusion_of
from edgekd.export.model_id import ModelId
from edgekd.runtime import backends
from edgekd.runtime.backends import Activations
from edgekd.runtime.bundle import EngineKey
from edgekd.runtime.comparison import difference
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

# Latencies within this ratio count as equal, because their order changes from run to run.
SAME = 1.05
# From this share of the operators on quantized values on, an engine that fuses them is taken to be faster in int8.
# ONNX Runtime computes 94 to 98 % of those of ResNet-18, MobileNetV2 and ShuffleNetV2, where int8 is 1.5 to 3 times
# faster on x86, and 55 % of those of MobileNetV3, where it is slower; of symmetric int8 0 to 42 %, always slower. In
# small networks the mean and the classifier, which stay in float, count for more: of ResNet-8 it computes 71 %.
FUSED = 2 / 3
# Milliseconds per call, by model.
Latencies = Mapping[ModelId, float]
Fusions = Mapping[ModelId, Fusion]


@dataclass(frozen=True)
class Preference:
    """The variants that an engine should use, best first, and how that was decided: a phrase."""

    order: list[str]
    reason: str


@dataclass(frozen=True)
class OtherEngine:
    """An engine without a backend in edgekd that can run a bundle's graphs; see Backend."""

    name: str
    title: str
    activations: tuple[Activations, ...]


OTHERS = (OtherEngine("openvino", "OpenVINO", ("int8", "float32", "float16")),)


def preferences(
    shipped: Mapping[str, ModelId],
    scores: Mapping[ModelId, Json],
    latencies: Mapping[str, Latencies],
    fusions: Mapping[str, Fusions] | None = None,
) -> dict[EngineKey, Preference]:
    """For each engine, the variants in the order in which it should use them, and why; see BundleManifest.

    Orders by rule are rules of thumb. A measured order is valid for this kind of machine only. What an engine fuses
    depends on the graph and not on the processor: it decides where the latencies are not known.

    Args:
        shipped: the bundle's variants, each with its model.
        scores: the evaluation's row of each model.
        latencies: for each backend that runs graphs, milliseconds of the smallest batch, measured on this machine.
        fusions: for each backend whose optimized graph can be looked at, what it makes of the quantized graphs.

    Returns:
        The preference of each engine, and of each backend that runs graphs on this kind of machine.
    """
    counted = fusions or {}
    usual = {engine.name: engine.activations for engine in OTHERS}
    usual |= {engine.name: engine.activations(None) for engine in backends.all_backends()}
    order = {
        EngineKey(name): _by_rule(_runnable(shipped, activations), shipped, scores, counted.get(name, {}))
        for name, activations in usual.items()
    }
    machine = platform.machine()
    for engine in backends.graph_backends():
        runs = _runnable(shipped, engine.activations(machine))
        measured = latencies.get(engine.name, {})
        if measured and all(shipped[name] in measured for name in runs):
            runs = _by_measurement(runs, shipped, scores, measured, engine.converted(machine))
            preference = Preference(
                runs, f"measured in this run, on {machine}: speed among those whose score is not certainly lower"
            )
        else:
            preference = _by_rule(runs, shipped, scores, counted.get(engine.name, {}))
        order[EngineKey.here(engine.name)] = preference
    return order


def fusions_of(models: Mapping[ModelId, Path]) -> dict[str, Fusions]:
    """What each backend here whose optimized graph can be looked at makes of quantized graphs that it should run.

    Args:
        models: the graphs' files, by model.

    Raises:
        BackendError: an engine refuses a graph.
    """
    return {
        backend.name: {
            model: fusion_of(graph, backend.optimizer)
            for model, graph in models.items()
            if _is_int8(model.variant) and variants.find(model.variant).activations in backend.activations(None)
        }
        for backend in backends.graph_backends()
        if backend.optimizer is not None
    }


def titles() -> dict[str, str]:
    """The titles of all engines, by name."""
    others = {engine.name: engine.title for engine in OTHERS}
    return others | {backend.name: backend.title for backend in backends.all_backends()}


def _runnable(shipped: Mapping[str, ModelId], activations: tuple[Activations, ...]) -> list[str]:
    return [name for each in activations for name in shipped if variants.find(name).activations == each]


def _by_rule(
    names: list[str], shipped: Mapping[str, ModelId], scores: Mapping[ModelId, Json], fusions: Fusions
) -> Preference:
    """The backend's order; int8 first where the engine computes it as such and it is not certainly less accurate."""
    found = {name: fusions[shipped[name]] for name in names if shipped[name] in fusions}
    best = max((scores[shipped[name]] for name in names), key=score_of, default=None)
    if not found or best is None:
        return Preference(names, "by rule, not measured")
    fused = [name for name, fusion in found.items() if fusion.share >= FUSED]
    first = [name for name in fused if difference(scores[shipped[name]], best).high >= 0.0]
    counts = "; ".join(
        f"of the operators on quantized values in {name} the engine computes {each.quantized} as such, and "
        f"{each.dequantized} in float"
        for name, each in found.items()
    )
    accuracy = "".join(f"; the score of {name} is certainly lower" for name in fused if name not in first)
    return Preference(
        [*first, *(name for name in names if name not in first)],
        f"by what the engine fuses, not measured: {counts}{accuracy}",
    )


def _is_int8(variant: str) -> bool:
    return variants.find(variant).precision == "int8"


def _by_measurement(
    names: list[str],
    shipped: Mapping[str, ModelId],
    scores: Mapping[ModelId, Json],
    latencies: Latencies,
    converted: Mapping[Activations, Activations],
) -> list[str]:
    """Variants that are not certainly less accurate than the best one, fastest first; then the others by accuracy.

    One that the engine converts before it computes does the work of the type that it is converted to, and more: where
    it was measured as faster, the machine was disturbed.
    """
    row = {name: scores[shipped[name]] for name in names}
    best = max(row.values(), key=score_of)
    kind = {name: variants.find(name).activations for name in names}
    measured = {name: latencies[shipped[name]] for name in names}
    alike = {name: [other for other in names if kind[other] == converted.get(kind[name])] for name in names}
    taken = {name: max(measured[each] for each in (name, *alike[name])) for name in names}
    fastest = min(taken.values())

    def rank(name: str) -> tuple[bool, float, bool, float]:
        worse = difference(row[name], best).high < 0.0
        score = score_of(row[name])
        return worse, -score if worse else max(taken[name] / fastest, SAME), bool(alike[name]), -score

    return sorted(names, key=rank)
