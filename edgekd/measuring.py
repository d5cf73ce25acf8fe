"""The bench stages: exported files and engines, measured one after the other on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd import plugins
from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.recipe.settings import BenchSettings
from edgekd.runtime import engines
from edgekd.store.artifacts import Bundle, Json, Measurements, OnnxModel, write_json

VERSION = 2


def at_hand(settings: BenchSettings) -> list[str]:
    return [device for device in settings.devices if profiles.find(device).kind == "local"]


def measure_models(
    models: Mapping[str, OnnxModel],
    settings: BenchSettings,
    out: Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measurements:
    """One benchmark record a model, device at hand and batch size, each model in a process of its own.

    A graph that ONNX Runtime has no fast kernels for here is left out: its latency would say nothing about the engine
    that it is made for.

    Args:
        models: named role-variant.

    Raises:
        BenchError: a model that cannot be measured.
    """
    runs = plugins.load("backend", "onnxruntime").VARIANTS
    here = at_hand(settings)
    jobs = [
        (name, model, device) for name, model in models.items() for device in here if name.partition("-")[2] in runs
    ]
    records: list[Json] = []
    for done, (name, model, device) in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs), name)
        measured = benchmark(
            model.graph,
            batch_sizes=settings.batch_sizes,
            threads=settings.threads,
            seconds=settings.seconds,
            warmup_seconds=settings.warmup_seconds,
            device=device,
        )
        records += [{"model": name, **record.model_dump(mode="json")} for record in measured]
    write_json(out / "measurements.json", {"records": records})
    return Measurements.seal(out, details={"models": {name: model.digest for name, model in models.items()}})


def measure_engines(
    bundle: Bundle,
    shipped: Mapping[str, str],
    settings: BenchSettings,
    out: Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measurements:
    """Build a bundle's TensorRT engines here, or take them from the cache, and measure each at every batch size.

    Args:
        shipped: the bundle's variants, each with the name of its model.

    Raises:
        BackendError: no TensorRT or GPU, or a graph that it cannot build.
        BenchError: an engine that cannot be measured.
    """
    built = engines.build(bundle.path, max_batch=max(settings.batch_sizes), progress=progress)
    measured = benchmark(
        bundle.path,
        backend="tensorrt",
        batch_sizes=settings.batch_sizes,
        seconds=settings.seconds,
        warmup_seconds=settings.warmup_seconds,
    )
    records = [{"model": shipped[record.variant or ""], **record.model_dump(mode="json")} for record in measured]
    write_json(out / "measurements.json", {"records": records})
    sizes = {engine.variant: engine.size_bytes for engine in built}
    return Measurements.seal(out, details={"bundle": bundle.digest, "engines": sizes})
