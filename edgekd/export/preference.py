"""The order in which each engine prefers a bundle's variants: measured where possible, else by rule."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.runtime import backends
from edgekd.runtime.backends import Activations
from edgekd.runtime.bundle import EngineKey
from edgekd.runtime.comparison import difference
from edgekd.runtime.statistics import score_of
from edgekd.store.artifacts import Json

# Latencies within this ratio count as equal, because their order changes from run to run.
SAME = 1.05
# Milliseconds per call, by model.
Latencies = Mapping[ModelId, float]


@dataclass(frozen=True)
class OtherEngine:
    """An engine without a backend in edgekd that can run a bundle's graphs; see Backend."""

    name: str
    title: str
    activations: tuple[Activations, ...]


OTHERS = (OtherEngine("openvino", "OpenVINO", ("int8", "float32", "float16")),)


def preferences(
    shipped: Mapping[str, ModelId], scores: Mapping[ModelId, Json], latencies: Mapping[str, Latencies]
) -> dict[EngineKey, list[str]]:
    """For each engine, the variants in the order in which it should use them; see BundleManifest.

    Orders by rule are rules of thumb. A measured order is valid for this kind of machine only.

    Args:
        shipped: the bundle's variants, each with its model.
        scores: the evaluation's row of each model.
        latencies: for each backend that runs graphs, milliseconds of the smallest batch, measured on this machine.

    Returns:
        Names of variants for each engine, and for each backend that runs graphs on this kind of machine.
    """
    usual = {engine.name: engine.activations for engine in OTHERS}
    usual |= {engine.name: engine.activations(None) for engine in backends.all_backends()}
    order = {EngineKey(name): _runnable(shipped, activations) for name, activations in usual.items()}
    for engine in backends.graph_backends():
        runs = _runnable(shipped, engine.activations(platform.machine()))
        measured = latencies.get(engine.name, {})
        if all(shipped[name] in measured for name in runs):
            runs = _by_measurement(runs, shipped, scores, measured, engine.converted(platform.machine()))
        order[EngineKey.here(engine.name)] = runs
    return order


def titles() -> dict[str, str]:
    """The titles of all engines, by name."""
    others = {engine.name: engine.title for engine in OTHERS}
    return others | {backend.name: backend.title for backend in backends.all_backends()}


def _runnable(shipped: Mapping[str, ModelId], activations: tuple[Activations, ...]) -> list[str]:
    return [name for each in activations for name in shipped if variants.find(name).activations == each]


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
