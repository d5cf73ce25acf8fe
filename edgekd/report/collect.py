"""From a finished run to the record that its report shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from edgekd.data.dataset import Dataset
from edgekd.devices import profiles
from edgekd.export import legality, preference, variants
from edgekd.export.model_id import ModelId
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import Recipe
from edgekd.report.result import Result
from edgekd.runs import Role
from edgekd.runtime import backends
from edgekd.stages.benchmark import Measurements
from edgekd.stages.prune import Pruned
from edgekd.stages.quantize import Quantized
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import Done

LEVELS = ("error", "warning")
_MEASURED = (
    "model",
    "device",
    "provenance",
    "engine",
    "batch_size",
    "threads",
    "latency_ms",
    "samples_ms",
    "throughput_per_s",
    "load_ms",
    "first_inference_ms",
)


def collect(recipe: Recipe, made: Result, log: Sequence[Done], place: Path) -> Json:
    """The report's record; see edgekd.report.record for what each field means.

    Args:
        place: where the bundle was published.
    """
    names = dict.fromkeys(name.variant for name in made.exported.models)
    return {
        "title": recipe.settings.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": recipe.command,
        "edgekd": metadata.version("edgekd"),
        "recipe": recipe.text,
        "data": _data(made.data),
        "stages": [
            {"name": d.name, "title": d.title, "state": d.state, "seconds": d.seconds, "facts": list(d.facts)}
            for d in log
        ],
        "models": _models(made),
        "numerics": [{"model": str(name), **model.metrics["numerics"]} for name, model in made.exported.models.items()],
        "training": [
            {"role": role.name, "title": role.title, "epochs": _epochs(checkpoint)}
            for role, checkpoint in made.roles.items()
            if checkpoint.metrics.get("history")
        ],
        "pruning": _pruning(made.pruned),
        "quantization": _quantization(made.quantized),
        "measurements": [_measurement(record) for each in _measured(made) for record in each.records],
        "legality": _legality(made),
        "engines": made.bundle.details.engines,
        "engine_titles": preference.titles(),
        "unmeasured": {name: why for name in names if (why := variants.find(name).unmeasured) is not None},
        "loaded": _loaded(made),
        "environment": _environment(made.measured),
        "not_run": not_run(recipe.settings.bench.devices, made.exported.shipped),
        "bundle": {"path": str(place), "files": _files(made.bundle)},
        "warnings": _warnings(made),
        "roles": {role.name: _role(role) for role in made.roles},
    }


def _loaded(made: Result) -> str | None:
    """What edgekd.runtime.load takes here as long as no engine was built."""
    backend = backends.choose(next(iter(made.exported.models.values())).graph)
    order = made.bundle.details.engines.get(preference.name_here(backend.name), ())
    return str(made.exported.shipped[order[0]]) if order else None


def _measured(made: Result) -> list[Measurements]:
    return [made.measured, *([made.engines] if made.engines is not None else [])]


def not_run(devices: Sequence[str], shipped: Iterable[str]) -> list[Json]:
    """What this run has no figure for, and why. No estimate takes its place."""
    unusable = [(backend, backend.available()) for backend in backends.all_backends()]
    reasons = [
        {"what": backend.title if backend.opens_graphs else f"{backend.title} engines", "why": why}
        for backend, why in unusable
        if why is not None
    ]
    for profile in map(profiles.find, devices):
        if profile.kind == "local":
            continue
        reasons.append({"what": profile.title, "why": "not at hand: copy the bundle there and run `edgekd bench`"})
        for precision in sorted({variants.find(name).precision for name in shipped}):
            if profile.precisions is not None and precision not in profile.precisions:
                others = ", ".join(profile.precisions)
                why = f"the device has no {precision}: take another of its precisions there ({others})"
                reasons.append({"what": f"{precision} on {profile.title}", "why": why})
    return reasons


def _warnings(made: Result) -> list[str]:
    """Each once: what was shown before the student was trained may stand in its manifest too."""
    noted = [warning for checkpoint in made.checkpoints for warning in checkpoint.metrics.get("warnings", ())]
    return list(dict.fromkeys([*made.warnings, *noted]))


def _pruning(made: Pruned | None) -> Json | None:
    if made is None:
        return None
    cut = made.pruned
    said = {key: cut.metrics[key] for key in ("measure", "target", "kept", "multiple", "before", "widths")}
    return {**said, "after": {key: cut.metrics[key] for key in ("macs", "parameters")}}


def _quantization(made: Quantized | None) -> Json | None:
    if made is None:
        return None
    calibrated = made.calibrated
    said = {key: calibrated.metrics[key] for key in ("calibration_images", "quantized_values", "left_in_float")}
    return {"mode": "ptq" if calibrated is made.trained else "qad", **said}


def _legality(made: Result) -> list[Json]:
    """Every shipped graph that TensorRT is given, against all_backends version that is checked by default."""
    rows = []
    for variant, model in made.exported.shipped.items():
        if not legality.is_offered(variants.find(variant).activations):
            continue
        graph = legality.read(made.exported.models[model].graph)
        for version in legality.VERSIONS:
            verdict = legality.check(graph, version)
            found = {
                level: [f"{f.node}: {f.message}" for f in verdict.findings if f.level == level] for level in LEVELS
            }
            rows.append(
                {
                    "model": str(model),
                    "version": version,
                    "jetpack": legality.JETPACKS.get(version, ""),
                    "legal": verdict.legal,
                    "note": verdict.note,
                    **{f"{level}s": messages for level, messages in found.items()},
                }
            )
    return rows


def _data(data: Dataset) -> Json:
    details, metrics = data.details, data.metrics
    return {
        "source": details.source,
        "classes": details.classes,
        "counts": details.counts,
        "image_size": details.preprocessing.image_size,
        **{key: metrics[key] for key in ("leaks", "duplicates", "conflicting_labels", "broken")},
    }


def _models(made: Result) -> list[Json]:
    rows = {ModelId.of(row): row for row in made.scores.rows}
    return [_model(name, made, rows[name]) for name in made.exported.models]


def _model(name: ModelId, made: Result, row: Json) -> Json:
    role, checkpoint = next(found for found in made.roles.items() if found[0].name == name.role)
    architecture = checkpoint.details.architecture
    arguments = ", ".join(f"{key}={value}" for key, value in architecture.arguments.items())
    stage = checkpoint.manifest.stage
    return {
        "id": str(name),
        "role": role.name,
        "title": role.title,
        "variant": name.variant,
        "precision": variants.find(name.variant).precision,
        "ships": name in made.exported.shipped.values(),
        "architecture": f"{architecture.model} {arguments}".strip(),
        "accuracy": row["accuracy"],
        "interval": row["interval"],
        "samples": row["samples"],
        "size_bytes": made.exported.models[name].graph.stat().st_size,
        "parameters": checkpoint.metrics["parameters"],
        "macs": checkpoint.metrics["macs"],
        "seconds": stage.seconds if stage is not None else None,
        "heads": {
            head: {key: score[key] for key in ("accuracy", "interval", "samples")}
            for head, score in row.get("heads", {}).items()
        },
    }


def _epochs(checkpoint: Checkpoint) -> list[Json]:
    keys = ("epoch", "loss", "validation_accuracy")
    return [{key: record[key] for key in keys} for record in checkpoint.metrics["history"]]


def _measurement(record: Json) -> Json:
    flags = []
    if record["throttling"]["flagged"]:
        flags.append("slower towards the end: throttled or disturbed")
    if record["busy"]:
        flags.append("the machine was busy with other work")
    return {**{key: record[key] for key in _MEASURED}, "peak_bytes": record["memory"]["peak_bytes"], "flags": flags}


def _environment(measurements: Measurements) -> Json:
    """What the measuring process saw, and what trained the networks; what a machine does not report is left out."""
    records = measurements.records
    if not records:
        return {}
    seen: Json = {key: value for key, value in records[0]["environment"].items() if value is not None}
    versions = measurements.manifest.versions
    trained_with = {key: versions[key] for key in ("torch", "torchvision") if versions.get(key) is not None}
    engines = seen.pop("engines")
    memory = f"{seen.pop('ram_bytes') / 2**30:.1f} GiB"
    return {
        **seen,
        **engines,
        "memory": memory,
        **{key: value for key, value in trained_with.items() if value is not None},
    }


def _files(bundle: Artifact) -> list[Json]:
    notes = {"bundle.json": "how to feed it, classes, metrics, digests", "card.md": "model card"}
    notes |= {f"model.{name}.onnx": variants.find(name).note for name in bundle.details.variants}
    return [
        {"name": name, "size_bytes": record.size_bytes, "note": notes.get(name, "self-test vectors")}
        for name, record in bundle.manifest.files.items()
    ]


def _role(role: Role) -> Json:
    return {"legend": role.legend, "shape": role.shape, "colour": role.colour}
