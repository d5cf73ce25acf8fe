"""Latency of the exported files, measured one after the other on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from edgekd.bench.environment import environment, fingerprint
from edgekd.bench.measure import benchmark
from edgekd.devices import profiles
from edgekd.export import variants
from edgekd.export.model_id import ModelId, labelled
from edgekd.export.onnx_model import OnnxModel
from edgekd.recipe.settings import BenchSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.runtime.backends import Progress, graph_backends
from edgekd.store.artifacts import Artifact, Details, Json, read_json, write_json

STAGE = Stage("bench", "Latency", version=3, compares=True, facts=lambda made: [f"{len(made.records)} measurements"])


class MeasurementsDetails(Details):
    """What was measured: exported models, by name their digests, or a bundle's engines.

    Attributes:
        engines: by backend and variant the engines' bytes.
    """

    models: dict[str, str] = {}
    bundle: str | None = None
    engines: dict[str, dict[str, int]] = {}


class Measurements(Artifact[MeasurementsDetails]):
    """`measurements.json`: one benchmark record per model."""

    kind = "measurements"

    @property
    def records(self) -> list[Json]:
        records: list[Json] = read_json(self.path / "measurements.json")["records"]
        return records


def benchmark_models(run: Run, models: Mapping[ModelId, OnnxModel]) -> Measurements:
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
        inputs=labelled(models),
        make=lambda out: measure_models(models, settings, out, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, made)


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
    digests = {str(name): model.digest for name, model in models.items()}
    return Measurements.seal(out, details=MeasurementsDetails(models=digests))
