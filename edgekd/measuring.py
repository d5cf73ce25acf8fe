"""The bench stage: exported files, measured one after the other on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd.artifacts import Json, Measurements, OnnxModel, write_json
from edgekd.bench.measure import benchmark
from edgekd.settings import BenchSettings

VERSION = 1


def measure_models(
    models: Mapping[str, OnnxModel],
    settings: BenchSettings,
    out: Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measurements:
    """One benchmark record a model, device and batch size, each model in a process of its own.

    Raises:
        BenchError: a device that is not at hand, or a model that cannot be measured.
    """
    jobs = [(name, model, device) for name, model in models.items() for device in settings.devices]
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
