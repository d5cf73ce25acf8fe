"""Engines of the bundle's graphs, built and measured on this machine by every backend that builds engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekd.bench.environment import environment, fingerprint
from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.export.bundle import Bundle
from edgekd.export.model_id import ModelId
from edgekd.recipe.settings import BenchSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.runtime import engines as building
from edgekd.runtime.backends import Backend, BuildOptions, Progress, builders
from edgekd.stages import _code
from edgekd.stages.benchmark import Measurements, MeasurementsDetails
from edgekd.store.artifacts import Json, write_json
from edgekd.wording import counted

STAGE = Stage(
    "engines", "Engines built here", version=5, facts=lambda found: [counted(len(found.records), "measurement")]
)


def engines(run: Run, bundle: Bundle, shipped: Mapping[str, ModelId]) -> Measurements | None:
    """Build and measure the bundle's engines; None where no backend on this machine builds any.

    Args:
        bundle: the bundle.
        shipped: the bundle's variants, each with its model.

    Raises:
        BackendError, BenchError: as measure_engines().
    """
    settings = run.recipe.bench
    measured_here = any(profiles.find(name).kind == "local" for name in settings.devices)
    if not measured_here or not builders():
        return run.finish(STAGE, None)
    devices = {backend.name: dict(builder.device()) for backend, builder in builders()}
    code = _code.code_of(backend for backend, _ in builders())
    machine = {"machine": fingerprint(environment()), "built_for": devices, **code}
    measurements = run.stage(
        STAGE,
        Measurements,
        settings={**settings_json(settings, exclude={"devices", "threads"}), **machine},
        inputs={"bundle": bundle},
        make=lambda out: measure_engines(bundle, shipped, settings, out, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, measurements)


def measure_engines(
    bundle: Bundle,
    shipped: Mapping[str, ModelId],
    settings: BenchSettings,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Measurements:
    """Build a bundle's engines on this machine, or take them from the cache, and measure each at every batch size.

    Args:
        bundle: the bundle.
        shipped: its variants, each with its model.
        settings: of the benchmark.
        out: an empty folder, which becomes the artifact.
        progress: called with (engines done, engines in total, what is built next).

    Raises:
        BackendError: an engine cannot be built, or the engine cache cannot be written.
        BenchError: an engine cannot be measured.
    """
    records: list[Json] = []
    sizes: dict[str, dict[str, int]] = {}
    for backend, _ in builders():
        options = BuildOptions(max_batch=max(settings.batch_sizes))
        built = building.build(bundle.path, backend=backend.name, options=options, progress=progress)
        sizes[backend.name] = {engine.variant: engine.size_bytes for engine in built}
        records += _measured(bundle, backend, shipped, settings)
    write_json(out / "measurements.json", {"records": records})
    return Measurements.seal(out, details=MeasurementsDetails(bundle=bundle.digest, engines=sizes))


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
