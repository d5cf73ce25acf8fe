"""Latency of the exported files on this machine: each alone, and those that ship in turns."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgekd import plugins
from edgekd.bench.environment import emulation_warning, environment, fingerprint, require_real_processor
from edgekd.bench.measure import benchmark
from edgekd.bench.measurement import Measurement
from edgekd.bench.process import check_threads
from edgekd.bench.subnormals import subnormal_warning
from edgekd.bench.turns import Turns, take_turns
from edgekd.devices import profiles
from edgekd.errors import BenchError, EdgekdError, UsageError
from edgekd.export import variants
from edgekd.export.model_id import ModelId, labelled
from edgekd.export.onnx_model import OnnxModel
from edgekd.recipe.settings import BenchSettings, RecipeSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.runtime.backends import Backend, Progress, graph_backends
from edgekd.runtime.backends import find as find_backend
from edgekd.stages import _code
from edgekd.store.artifacts import Artifact, Details, Json, read_as, read_record, write_json
from edgekd.store.records import Frozen
from edgekd.wording import counted

_DISTURBED = (
    "Some measurements were disturbed (the machine was busy with other work, or became slower): their latencies may be "
    "too high."
)
# Long enough for several calls; the turns of four variants then take about three seconds.
_TURN_SECONDS = 0.04


def _check_machine(recipe: RecipeSettings) -> None:
    if recipe.bench.threads is not None:
        check_threads(recipe.bench.threads, name="bench.threads")
    budget = recipe.budget
    if budget is None or budget.latency_ms is None:
        return
    judged = recipe.variants if budget.variant is None else (budget.variant,)
    if not any(map(_runs_here, judged)):
        raise UsageError(
            "budget.latency_ms cannot be judged: no engine on this machine has fast kernels for the variant",
            found=", ".join(judged),
            allowed=", ".join(filter(_runs_here, recipe.variants)) or None,
            hint="remove budget.latency_ms, or judge a variant that is measured here: budget.variant, export.variants",
        )
    require_real_processor("budget.latency_ms")


def _runs_here(variant: str) -> bool:
    """Whether an engine on this machine has fast kernels for a variant's graph."""
    kind = variants.find(variant).activations
    return any(kind in backend.activations(platform.machine()) for backend in graph_backends())


STAGE = Stage(
    "bench",
    "Latency",
    version=6,
    compares=True,
    facts=lambda found: [counted(len(found.records), "measurement")],
    check_machine=_check_machine,
)


class MeasurementsDetails(Details):
    """What was measured: exported models, or a bundle's engines.

    Attributes:
        models: the digest of each exported model, by its name.
        bundle: the digest of the bundle that the engines were built from.
        engines: the engines' sizes in bytes, by backend and variant.
    """

    models: dict[str, str] = {}
    bundle: str | None = None
    engines: dict[str, dict[str, int]] = {}


class ModelMeasurement(Measurement):
    """One benchmark of a run's model; the added fields are those of ModelId.to_json()."""

    model: str
    role: str
    variant: str


class Records(Frozen):
    """What measurements.json holds; `turns` are of the variants that ship, one per backend with two or more."""

    records: tuple[ModelMeasurement, ...]
    turns: tuple[Turns, ...] = ()


class Measurements(Artifact[MeasurementsDetails]):
    """`measurements.json`: one benchmark record per model."""

    kind = "measurements"

    @property
    def records(self) -> list[Json]:
        """One per model and batch size. Raises ArtifactError for a file that is not valid."""
        records: list[Json] = read_record(self.path / "measurements.json", Records)["records"]
        return records

    @property
    def turns(self) -> tuple[Turns, ...]:
        """The variants that ship, in turns, one per backend. Raises ArtifactError for a file that is not valid."""
        return read_as(self.path / "measurements.json", Records).turns


def benchmark_models(run: Run, models: Mapping[ModelId, OnnxModel], shipped: Mapping[str, ModelId]) -> Measurements:
    """Measure every model that an inference engine on this machine has fast kernels for. Raises as measure_models()."""
    settings = run.recipe.bench
    measurements = run.stage(
        STAGE,
        Measurements,
        settings={
            **settings_json(settings),
            # Only local devices are measured.
            "devices": at_hand(settings),
            "shipped": {variant: str(model) for variant, model in shipped.items()},
            "machine": fingerprint(environment()),
            **_code.code_of(graph_backends()),
        },
        inputs=labelled(models),
        make=lambda out: measure_models(models, settings, out, shipped=shipped, progress=run.progress(STAGE.name)),
    )
    return run.finish(STAGE, measurements)


def at_hand(settings: BenchSettings) -> list[str]:
    """The devices that can be measured on from this machine."""
    return [device for device in settings.devices if profiles.find(device).kind == "local"]


def _jobs(models: Iterable[ModelId], settings: BenchSettings) -> list[tuple[ModelId, Backend, str]]:
    """What is measured: models, each with a backend that has fast kernels for it, and a device."""
    return [
        (name, backend, device)
        for backend in graph_backends()
        for name in models
        for device in at_hand(settings)
        if variants.find(name.variant).activations in backend.activations(platform.machine())
    ]


def _by_batch(
    graph: Path, backend: Backend, settings: BenchSettings, device: str
) -> tuple[list[Measurement], list[str]]:
    """The measurements, and the batch sizes that cannot be measured, each with the reason; the smallest one must be."""

    def measured(sizes: Sequence[int]) -> list[Measurement]:
        return benchmark(
            graph,
            backend=backend.name,
            batch_sizes=sizes,
            threads=settings.threads,
            seconds=settings.seconds,
            warmup_seconds=settings.warmup_seconds,
            device=device,
        )

    sizes = sorted(settings.batch_sizes)
    try:
        return measured(settings.batch_sizes), []
    except BenchError:
        if len(sizes) == 1:
            raise
    found, refused = measured(sizes[:1]), []
    for size in sizes[1:]:
        try:
            found += measured((size,))
        except BenchError as error:
            refused.append(f"a batch of {size:,}: {error.what}" + (f", {error.found}" if error.found else "") + ".")
    return found, refused


def measure_models(
    models: Mapping[ModelId, OnnxModel],
    settings: BenchSettings,
    out: Path,
    *,
    shipped: Mapping[str, ModelId] | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """One benchmark record per model, backend, local device and batch size, each measured in a process of its own.

    The variants that ship are then measured once more, in turns: of files that are measured one after another, a
    disturbance of the machine decides which is faster.

    A backend is not given a graph whose activations it has no fast kernels for on this machine: such a latency would
    mean nothing for the engine that the graph is meant for.

    Args:
        models: by their identity.
        settings: of the benchmark.
        out: an empty folder, which becomes the artifact.
        shipped: the variants that ship, each with its model.
        progress: called with (measurements done, measurements in total, what is measured next).

    Raises:
        BenchError: a model cannot be measured.
        BackendError: an engine refuses a model.
    """
    jobs = _jobs(models, settings)
    records: list[Json] = []
    failed: dict[str, str] = {}
    slow: dict[str, None] = {}
    emulated: dict[str, None] = {}
    too_large: dict[str, None] = {}
    for done, (name, backend, device) in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs), f"{name}, {backend.title}")
        if backend.name in failed:
            continue
        try:
            measured, refused = _by_batch(models[name].graph, backend, settings, device)
            too_large |= {f"{backend.title} was not measured with {why}": None for why in refused}
        except EdgekdError as error:
            if not plugins.code_key("backend", backend.name):
                raise
            # A backend from outside that nobody asked for must not end a run.
            failed[backend.name] = _not_measured(backend, error)
            continue
        emulated |= dict.fromkeys(filter(None, (emulation_warning(record.environment) for record in measured)))
        slow |= dict.fromkeys(filter(None, (subnormal_warning(record, str(name)) for record in measured)))
        records += [{**record.model_dump(mode="json"), **name.to_json()} for record in measured]
    records = [record for record in records if record["backend"] not in failed]
    graphs = {variant: models[model].graph for variant, model in (shipped or {}).items()}
    turns = [] if emulated else _turns(graphs, records, settings, failed, progress)
    write_json(
        out / "measurements.json", {"records": records, "turns": [each.model_dump(mode="json") for each in turns]}
    )
    digests = {str(name): model.digest for name, model in models.items()}
    warnings = [
        *failed.values(),
        *too_large,
        *emulated,
        *slow,
        *([_DISTURBED] if any(record["busy"] or record["throttling"]["flagged"] for record in records) else []),
    ]
    return Measurements.seal(out, details=MeasurementsDetails(models=digests), metrics={"warnings": warnings})


def _turns(
    graphs: Mapping[str, Path],
    records: Sequence[Json],
    settings: BenchSettings,
    failed: dict[str, str],
    progress: Progress | None,
) -> list[Turns]:
    """The variants that ship, in turns in every engine that was measured and runs more than one of them.

    Where one from outside fails, `failed` is told, and its order is not a measured one.
    """
    engines = {record["backend"]: record["engine"] for record in records}
    found = []
    for done, (name, engine) in enumerate(engines.items()):
        backend = find_backend(name)
        runs = backend.activations(platform.machine())
        files = {each: file for each, file in graphs.items() if variants.find(each).activations in runs}
        if len(files) < 2:
            continue
        if progress is not None:
            progress(done, len(engines), f"the variants in turns, {backend.title}")
        # A stable sort: fp32 first, with which the others are compared.
        ordered = sorted(files, key=lambda each: variants.find(each).precision != "fp32")
        try:
            found.append(
                take_turns(
                    {each: files[each] for each in ordered},
                    backend=name,
                    engine=engine,
                    batch_size=min(record["batch_size"] for record in records if record["backend"] == name),
                    threads=settings.threads,
                    seconds=min(_TURN_SECONDS, settings.seconds),
                )
            )
        except EdgekdError as error:
            if not plugins.code_key("backend", name):
                raise
            failed[name] = _not_measured(backend, error)
    return found


def _not_measured(backend: Backend, error: EdgekdError) -> str:
    return f"{backend.title} was not measured: {'; '.join(str(error).split(chr(10) + '  '))}."
