"""Latency of the exported files, measured one after the other on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd import plugins
from edgekd.bench.environment import environment, fingerprint
from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.export.onnx_model import OnnxModel
from edgekd.recipe.settings import BenchSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.store.artifacts import Artifact, Details, Json, read_json, write_json

VERSION = 2


class MeasurementsDetails(Details):
    """What was measured: exported models, by name their digests, or a bundle's engines, by variant their bytes."""

    models: dict[str, str] = {}
    bundle: str | None = None
    engines: dict[str, int] = {}


class Measurements(Artifact[MeasurementsDetails]):
    """`measurements.json`: one benchmark record per model."""

    kind = "measurements"

    @property
    def records(self) -> list[Json]:
        records: list[Json] = read_json(self.path / "measurements.json")["records"]
        return records


STAGE = Stage(
    "bench", "Latency", version=VERSION, compares=True, facts=lambda made: [f"{len(made.records)} measurements"]
)


def benchmark_models(run: Run, models: Mapping[str, OnnxModel]) -> Measurements:
    """Every model that an engine at hand has fast kernels for."""
    settings = run.recipe.bench
    made = run.stage(
        STAGE,
        Measurements,
        settings={
            **settings_json(settings),
            # Boards that are not at hand are not measured.
            "devices": at_hand(settings),
            "machine": fingerprint(environment()),
        },
        inputs=models,
        make=lambda out: measure_models(models, settings, out, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, made)


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
    digests = {name: model.digest for name, model in models.items()}
    return Measurements.seal(out, details=MeasurementsDetails(models=digests))
