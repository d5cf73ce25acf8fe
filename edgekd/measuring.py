"""The benchmark stages: exported files and engines, measured one after the other on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.export import variants
from edgekd.export.model_id import ModelId
from edgekd.recipe.settings import BenchSettings
from edgekd.runtime import engines
from edgekd.runtime.backends import Backend, BuildOptions, Progress, builders, graph_backends
from edgekd.store.artifacts import Bundle, Json, Measurements, OnnxModel, write_json

VERSION = 3


def at_hand(settings: BenchSettings) -> list[str]:
    """Those of the devices that can be measured on from here."""
    return [device for device in settings.devices if profiles.find(device).kind == "local"]


def measure_models(
    models: Mapping[ModelId, OnnxModel], settings: BenchSettings, out: Path, *, progress: Progress | None = None
) -> Measurements:
    """One benchmark record per model, backend, device at hand and batch size, each in a process of its own.

    A backend that has no fast kernels here for a graph's activations does not get that graph: the latency would be
    none of the engine that it is made for.

    Raises:
        BenchError: a model that cannot be measured.
    """
    jobs = [
        (name, backend, device)
        for backend in graph_backends()
        for name in models
        for device in at_hand(settings)
        if variants.find(name.variant).activations in backend.activations(platform.machine())
    ]
    records: list[Json] = []
    for done, (name, backend, device) in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs), f"{name}, {backend.title}")
        measured = benchmark(
            models[name].graph,
            backend=backend.name,
            batch_sizes=settings.batch_sizes,
            threads=settings.threads,
            seconds=settings.seconds,
            warmup_seconds=settings.warmup_seconds,
            device=device,
        )
        records += [{**record.model_dump(mode="json"), **name.to_json()} for record in measured]
    write_json(out / "measurements.json", {"records": records})
    return Measurements.seal(out, details={"models": {str(name): model.digest for name, model in models.items()}})


def measure_engines(
    bundle: Bundle,
    shipped: Mapping[str, ModelId],
    settings: BenchSettings,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Measurements:
    """Build a bundle's engines here, or take them from the cache, and measure each at every batch size.

    Args:
        shipped: the bundle's variants, each with its model.

    Raises:
        BackendError: a graph that cannot be built, or a cache that cannot be written.
        BenchError: an engine that cannot be measured.
    """
    records: list[Json] = []
    sizes: dict[str, dict[str, int]] = {}
    for backend, _ in builders():
        options = BuildOptions(max_batch=max(settings.batch_sizes))
        built = engines.build(bundle.path, backend=backend.name, options=options, progress=progress)
        sizes[backend.name] = {engine.variant: engine.size_bytes for engine in built}
        records += _measured(bundle, backend, shipped, settings)
    write_json(out / "measurements.json", {"records": records})
    return Measurements.seal(out, details={"bundle": bundle.digest, "engines": sizes})


def _measured(bundle: Bundle, backend: Backend, shipped: Mapping[str, ModelId], settings: BenchSettings) -> list[Json]:
    measured = benchmark(
        bundle.path,
        backend=backend.name,
        batch_sizes=settings.batch_sizes,
        seconds=settings.seconds,
        warmup_seconds=settings.warmup_seconds,
    )
    named = [(record.variant, record.model_dump(mode="json")) for record in measured]
    return [{**record, **shipped[variant].to_json()} for variant, record in named if variant is not None]
