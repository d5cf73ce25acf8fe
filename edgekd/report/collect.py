"""From a finished run to the record that its report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.artifacts import Artifact, Checkpoint, Dataset, Json, Measurements
from edgekd.models.checkpoint import architecture_of
from edgekd.recipe import Recipe
from edgekd.store import Done

if TYPE_CHECKING:
    from edgekd.pipeline import Made

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
_TITLES = {"teacher": "Teacher", "baseline": "Student, labels alone", "student": "Student, distilled"}
_STAGE_OF = {"teacher": "teacher", "baseline": "baseline", "student": "distill"}


def collect(recipe: Recipe, made: Made, measurements: Measurements, log: Sequence[Done], place: Path) -> Json:
    """The report's record; see edgekd.report.record for what each field means.

    Args:
        place: where the bundle was published.
    """
    checkpoints = {"teacher": made.teacher, "baseline": made.baseline, "student": made.student}
    present = {role: checkpoint for role, checkpoint in checkpoints.items() if checkpoint is not None}
    return {
        "title": recipe.settings.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": recipe.command,
        "edgekd": metadata.version("edgekd"),
        "recipe": recipe.text,
        "data": _data(made.data),
        "stages": [
            {"name": d.name, "title": _stage_title(d.name), "state": d.state, "seconds": d.seconds} for d in log
        ],
        "models": _models(made, present),
        "numerics": [{"model": name, **model.metrics["numerics"]} for name, model in made.models.items()],
        "training": [
            {"role": role, "title": _TITLES[role], "epochs": _epochs(checkpoint)}
            for role, checkpoint in present.items()
            if checkpoint.metrics.get("history")
        ],
        "measurements": [_measurement(record) for record in measurements.records],
        "environment": _environment(measurements),
        "not_run": [
            {"what": "TensorRT engines", "why": "this version exports ONNX; it builds no engines yet"},
            {"what": "Jetson, Raspberry Pi", "why": "no such device was at hand; no figure here is an estimate"},
        ],
        "bundle": {"path": str(place), "files": _files(made.bundle)},
        "warnings": [w for checkpoint in present.values() for w in checkpoint.metrics.get("warnings", ())],
    }


def _data(data: Dataset) -> Json:
    details, metrics = data.manifest.details, data.metrics
    return {
        **{key: details[key] for key in ("source", "classes", "counts")},
        "image_size": details["preprocessing"]["image_size"],
        **{key: metrics[key] for key in ("leaks", "duplicates", "conflicting_labels", "broken")},
    }


def _models(made: Made, checkpoints: Mapping[str, Checkpoint]) -> list[Json]:
    rows = {row["model"]: row for row in made.evaluation.rows}
    return [_model(name, made, checkpoints[name.partition("-")[0]], rows[name]) for name in made.models]


def _model(name: str, made: Made, checkpoint: Checkpoint, row: Json) -> Json:
    role, _, variant = name.partition("-")
    architecture = architecture_of(checkpoint)
    arguments = ", ".join(f"{key}={value}" for key, value in architecture.arguments.items())
    stage = checkpoint.manifest.stage
    return {
        "id": name,
        "role": role,
        "title": _TITLES[role],
        "variant": variant,
        "architecture": f"{architecture.model} {arguments}".strip(),
        "accuracy": row["accuracy"],
        "interval": row["interval"],
        "samples": row["samples"],
        "size_bytes": made.models[name].graph.stat().st_size,
        "parameters": checkpoint.metrics["parameters"],
        "macs": checkpoint.metrics["macs"],
        "seconds": stage.seconds if stage is not None else None,
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
    """What the measuring process saw, and what trained the networks; what a machine does not tell is left out."""
    records = measurements.records
    if not records:
        return {}
    seen: Json = {key: value for key, value in records[0]["environment"].items() if value is not None}
    trained_with = {key: measurements.manifest.versions.get(key) for key in ("torch", "torchvision")}
    memory = f"{seen.pop('ram_bytes') / 2**30:.1f} GiB"
    return {**seen, "memory": memory, **{key: value for key, value in trained_with.items() if value is not None}}


def _files(bundle: Artifact) -> list[Json]:
    notes = {
        "bundle.json": "how to feed it, classes, metrics, digests",
        "card.md": "model card",
        "model.fp32.onnx": "graph in single precision",
        "model.fp16.onnx": "graph in half precision, for engines that compute in it",
    }
    return [
        {"name": name, "size_bytes": record.size_bytes, "note": notes.get(name, "self-test vectors")}
        for name, record in bundle.manifest.files.items()
    ]


def _stage_title(name: str) -> str:
    role = {stage: role for role, stage in _STAGE_OF.items()}.get(name)
    if role is not None:
        return _TITLES[role]
    if name.startswith("export-"):
        _, exported, variant = name.split("-", 2)
        return f"{_TITLES[exported]}: ONNX {variant}"
    return {"data": "Data", "evaluate": "Test accuracy", "bundle": "Bundle", "bench": "Latency"}[name]
