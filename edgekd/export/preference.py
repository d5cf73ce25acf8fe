"""Which engine should take which variant of a bundle: by measurement where there is one, else by rule."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.runtime import backends
from edgekd.runtime.backends import Activations
from edgekd.store.artifacts import Json

# Latencies this close are the same: which is ahead changes from run to run.
SAME = 1.05
# Milliseconds of one call, by model.
Latencies = Mapping[ModelId, float]


@dataclass(frozen=True)
class OtherEngine:
    """An engine without a backend here, which takes a bundle's graphs all the same; see Backend."""

    name: str
    title: str
    activations: tuple[Activations, ...]


OTHERS = (OtherEngine("openvino", "OpenVINO", ("int8", "float32", "float16")),)


def preferences(
    shipped: Mapping[str, ModelId], scores: Mapping[ModelId, Json], latencies: Mapping[str, Latencies]
) -> dict[str, list[str]]:
    """For each engine the variants in the order in which it should take them; see BundleManifest.

    What an engine is fastest in is a rule of thumb; only an order that was measured, and so holds for this kind of
    machine alone, is more than that.

    Args:
        shipped: the bundle's variants, each with its model.
        scores: the models' rows of the evaluation.
        latencies: by backend that runs graphs, milliseconds for the smallest batch measured on this machine.
    """
    known = backends.every()
    order = {engine.name: _of(shipped, engine.activations(None)) for engine in known}
    order |= {engine.name: _of(shipped, engine.activations) for engine in OTHERS if engine.name not in order}
    for engine in backends.graph_backends():
        runs = _of(shipped, engine.activations(platform.machine()))
        measured = latencies.get(engine.name, {})
        if all(shipped[name] in measured for name in runs):
            runs = _by_measurement(runs, shipped, scores, measured)
        order[here(engine.name)] = runs
    return order


def titles() -> dict[str, str]:
    """What each engine in an order is called for people, by its name."""
    others = {engine.name: engine.title for engine in OTHERS}
    return others | {backend.name: backend.title for backend in backends.every()}


def here(backend: str) -> str:
    """What a backend on this machine is called in an order."""
    return f"{backend}-{platform.machine()}"


def _of(shipped: Mapping[str, ModelId], activations: tuple[Activations, ...]) -> list[str]:
    return [name for each in activations for name in shipped if variants.find(name).activations == each]


def _by_measurement(
    names: list[str], shipped: Mapping[str, ModelId], scores: Mapping[ModelId, Json], latencies: Latencies
) -> list[str]:
    """Those as accurate as the best within its own 95 % interval first, the fastest in front; then by accuracy."""
    row = {name: scores[shipped[name]] for name in names}
    best = max(row.values(), key=lambda each: float(each["accuracy"]))
    fastest = min(latencies[shipped[name]] for name in names)

    def rank(name: str) -> tuple[bool, float, float]:
        worse = row[name]["interval"][1] < best["accuracy"]
        slower = latencies[shipped[name]] / fastest
        return worse, -row[name]["accuracy"] if worse else max(slower, SAME), -row[name]["accuracy"]

    return sorted(names, key=rank)
