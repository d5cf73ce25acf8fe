"""The order in which each engine prefers a bundle's variants: measured, else by what it fuses, else by rule."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.bench.turns import Turns
from edgekd.export import reasons, variants
from edgekd.export.accuracy_budget import AccuracyBudget, Accurate, accurate
from edgekd.export.fusion import Fusion, fusion_of
from edgekd.export.model_id import ModelId
from edgekd.export.reasons import Candidates
from edgekd.runtime import backends
from edgekd.runtime.backends import Activations
from edgekd.runtime.bundle import EngineKey
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

# From this share of the operators on quantized values on, an engine that fuses them is taken to be faster in int8.
# ONNX Runtime computes 94 to 98 % of those of ResNet-18, MobileNetV2 and ShuffleNetV2, where int8 is 1.5 to 3 times
# faster on x86, and 55 % of those of MobileNetV3, where it is slower; of symmetric int8 0 to 42 %, always slower. In
# small networks the mean and the classifier, which stay in float, count for more: of ResNet-8 it computes 71 %.
FUSED = 2 / 3
# By variant.
Fusions = Mapping[str, Fusion]


@dataclass(frozen=True)
class Preference:
    """The variants that an engine should use, best first, and how that was decided, in words."""

    order: list[str]
    reason: str


@dataclass(frozen=True)
class OtherEngine:
    """An engine without a backend in edgekd that can run a bundle's graphs; see Backend."""

    name: str
    title: str
    activations: tuple[Activations, ...]


OTHERS = (OtherEngine("openvino", "OpenVINO", ("int8", "float32", "float16")),)


@dataclass(frozen=True)
class Evidence:
    """What the orders rest on.

    Attributes:
        shipped: the bundle's variants, each with its model.
        scores: the evaluation's row of each model.
        sizes: of the variants' graphs, in bytes.
        turns: for each backend that runs graphs, the variants' latencies in turns on this machine.
        fusions: for each backend whose optimized graph can be looked at, what it makes of the quantized graphs.
        budget: of accuracy; None: the recipe has none.
    """

    shipped: Mapping[str, ModelId]
    scores: Mapping[ModelId, Json]
    sizes: Mapping[str, int]
    turns: Mapping[str, Turns] = field(default_factory=dict)
    fusions: Mapping[str, Fusions] = field(default_factory=dict)
    budget: AccuracyBudget | None = None


def preferences(evidence: Evidence) -> dict[EngineKey, Preference]:
    """For each engine, the variants in the order in which it should use them, and why; see BundleManifest.

    Orders by rule are rules of thumb. A measured order is valid for this kind of machine only. What an engine fuses
    depends on the graph and not on the processor: it decides where the latencies are not known.

    Returns:
        The preference of each engine, and of each backend that runs graphs on this kind of machine.
    """
    usual = {engine.name: engine.activations for engine in OTHERS}
    usual |= {engine.name: engine.activations(None) for engine in backends.all_backends()}
    order = {
        EngineKey(name): _by_rule(_runnable(evidence.shipped, activations), name, evidence)
        for name, activations in usual.items()
    }
    machine = platform.machine()
    for engine in backends.graph_backends():
        runs = _runnable(evidence.shipped, engine.activations(machine))
        turns = evidence.turns.get(engine.name)
        if turns is not None and runs and set(runs) <= set(turns.variants):
            preference = _by_measurement(runs, turns, evidence, engine.converted(machine))
        else:
            preference = _by_rule(runs, engine.name, evidence)
        order[EngineKey.here(engine.name)] = preference
    return order


def fusions_of(graphs: Mapping[str, Path]) -> dict[str, Fusions]:
    """What each backend here whose optimized graph can be looked at makes of quantized graphs that it should run.

    Args:
        graphs: the files, by variant.

    Raises:
        BackendError: an engine refuses a graph.
    """
    return {
        backend.name: {
            name: fusion_of(graph, backend.optimizer)
            for name, graph in graphs.items()
            if _is_int8(name) and variants.find(name).activations in backend.activations(None)
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


def _candidates(
    names: list[str], engine: str, evidence: Evidence, converted: Mapping[Activations, Activations]
) -> Candidates:
    kinds = {name: variants.find(name).activations for name in names}
    same = ((name, other) for name in names for other in names if kinds[other] == converted.get(kinds[name]))
    fusions = evidence.fusions.get(engine, {})
    return Candidates(
        rows={name: evidence.scores[evidence.shipped[name]] for name in names},
        sizes=evidence.sizes,
        fusions={name: fusions[name] for name in names if name in fusions},
        converted=dict(same),
    )


def _accurate(found: Candidates, evidence: Evidence) -> Accurate:
    against = evidence.budget.reference if evidence.budget is not None else None
    return accurate(found.rows, evidence.budget, evidence.scores.get(against) if against is not None else None)


def _by_rule(names: list[str], engine: str, evidence: Evidence) -> Preference:
    """The backend's order; int8 first where the engine computes it as such and it is accurate enough."""
    found = _candidates(names, engine, evidence, {})
    if not found.fusions:
        return Preference(names, "by rule, not measured")
    enough = _accurate(found, evidence)
    fused = [name for name, fusion in found.fusions.items() if fusion.share >= FUSED and name in enough.variants]
    order = [*fused, *(name for name in names if name not in fused)]
    return Preference(order, reasons.by_fusion(order, found, enough, FUSED))


def _is_int8(variant: str) -> bool:
    return variants.find(variant).precision == "int8"


def _by_measurement(
    names: list[str], turns: Turns, evidence: Evidence, converted: Mapping[Activations, Activations]
) -> Preference:
    """Variants that are accurate enough, fastest first; then the others by accuracy.

    Of those that are as fast as the fastest, the most accurate comes first, then the smallest. One that the engine
    converts before it computes does the work of the type that it is converted to, and more: where it was measured as
    faster, the machine was disturbed.
    """
    found = _candidates(names, turns.backend, evidence, converted)
    enough = _accurate(found, evidence)
    # Each one's own turns, or those of what the engine converts it to.
    taken = {name: max(name, found.converted.get(name, name), key=turns.share) for name in names}
    fastest = min((taken[name] for name in names if name in enough.variants), key=turns.share)

    def rank(name: str) -> tuple[bool, float, bool, float, int]:
        score, worse = score_of(found.rows[name]), name not in enough.variants
        speed = 1.0 if turns.as_fast(taken[name], fastest) else turns.ratio(taken[name], fastest)[0]
        return worse, -score if worse else speed, name in found.converted, -score, found.sizes[name]

    order = sorted(names, key=rank)
    return Preference(order, reasons.measured(order, found, turns, enough))
