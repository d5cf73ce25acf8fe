"""TensorRT engines of what ships, built and measured on this machine's GPU: last, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd.bench.environment import environment, fingerprint
from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.export.bundle import Bundle
from edgekd.recipe.settings import BenchSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.runtime import engines as building
from edgekd.runtime.backends import tensorrt
from edgekd.runtime.backends._cuda import device
from edgekd.stages.benchmark import Measurements, MeasurementsDetails
from edgekd.store.artifacts import write_json

STAGE = Stage("engines", "TensorRT engines", version=2, facts=lambda made: [f"{len(made.records)} measurements"])


def engines(run: Run, bundle: Bundle, shipped: Mapping[str, str]) -> Measurements | None:
    """The bundle's engines; None where nothing here builds any."""
    settings = run.recipe.bench
    measured_here = any(profiles.find(name).kind == "local" for name in settings.devices)
    if not measured_here or tensorrt.why_not() is not None:
        return run.finish(STAGE, None)
    gpu = device()
    machine = {"machine": fingerprint(environment()), "gpu": gpu.name, "capability": gpu.compute_capability}
    made = run.stage(
        STAGE,
        Measurements,
        settings={**settings_json(settings, exclude={"devices", "threads"}), **machine},
        inputs={"bundle": bundle},
        make=lambda out: measure_engines(bundle, shipped, settings, out, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, made)


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
    built = building.build(bundle.path, max_batch=max(settings.batch_sizes), progress=progress)
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
    return Measurements.seal(out, details=MeasurementsDetails(bundle=bundle.digest, engines=sizes))
