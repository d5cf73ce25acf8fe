"""From a finished run to the record that its report shows."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd import plugins
from edgekd.devices import profiles
from edgekd.export import legality
from edgekd.export.preference import here
from edgekd.models.checkpoint import architecture_of
from edgekd.recipe.load import Recipe
from edgekd.store.artifacts import Artifact, Checkpoint, Dataset, Json, Measurements
from edgekd.store.store import Done

if TYPE_CHECKING:
    from edgekd.pipeline import Made, Networks

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
_TITLES = {
    "teacher": "Teacher",
    "baseline": "Student, labels alone",
    "student": "Student, distilled",
    "pruned": "Pruned and recovered",
    "ptq": "Quantized without training",
    "quantized": "Quantized",
}
_STAGE_TITLES = {
    "data": "Data",
    "teacher": _TITLES["teacher"],
    "baseline": _TITLES["baseline"],
    "distill": _TITLES["student"],
    "prune": "Pruned",
    "recover": "Recovered",
    "calibrate": "Calibrated for int8",
    "quantize": "Quantization-aware distilled",
    "evaluate": "Test accuracy",
    "bench": "Latency",
    "bundle": "Bundle",
    "engines": "TensorRT engines",
}


def collect(recipe: Recipe, made: Made, log: Sequence[Done], place: Path) -> Json:
    """The report's record; see edgekd.report.record for what each field means.

    Args:
        place: where the bundle was published.
    """
    networks = made.networks.roles
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
        "models": _models(made),
        "numerics": [{"model": name, **model.metrics["numerics"]} for name, model in made.models.items()],
        "training": [
            {"role": _role(role), "title": _title(role), "epochs": _epochs(checkpoint)}
            for role, checkpoint in networks.items()
            if checkpoint.metrics.get("history")
        ],
        "pruning": _pruning(made.networks.cut, made.networks.pruned),
        "quantization": _quantization(made.networks.calibrated, made.networks.quantized),
        "measurements": [_measurement(record) for each in _measured(made) for record in each.records],
        "legality": _legality(made),
        "engines": made.bundle.manifest.details["engines"],
        "loaded": _loaded(made),
        "environment": _environment(made.measurements),
        "not_run": not_run(recipe.settings.bench.devices, made.shipped),
        "bundle": {"path": str(place), "files": _files(made.bundle)},
        "warnings": _warnings(made.networks),
    }


def _loaded(made: Made) -> str | None:
    order = made.bundle.manifest.details["engines"].get(here(), [])
    return made.shipped[order[0]] if order else None


def _measured(made: Made) -> list[Measurements]:
    return [made.measurements, *([made.engines] if made.engines is not None else [])]


def not_run(devices: Sequence[str], variants: Container[str]) -> list[Json]:
    """What this run has no figure for, and why. No estimate takes its place."""
    reasons = []
    if (why := plugins.load("backend", "tensorrt").why_not()) is not None:
        reasons.append({"what": "TensorRT engines", "why": why})
    for profile in map(profiles.find, devices):
        if profile.kind == "local":
            continue
        reasons.append({"what": profile.title, "why": "not at hand: copy the bundle there and run `edgekd bench`"})
        if "int8" in variants and "int8" not in (profile.precisions or ["int8"]):
            reasons.append({"what": f"int8 on {profile.title}", "why": "the device has no int8: take fp16 there"})
    return reasons


def _all(networks: Networks) -> list[Checkpoint]:
    found = [networks.teacher, *networks.others.values(), networks.baseline, networks.student]
    found += [networks.cut, networks.pruned]
    found += [networks.calibrated, networks.quantized if networks.quantized is not networks.calibrated else None]
    return [checkpoint for checkpoint in found if checkpoint is not None]


def _warnings(networks: Networks) -> list[str]:
    """Each once: what was told before the student was trained may stand in its manifest too."""
    noted = [warning for checkpoint in _all(networks) for warning in checkpoint.metrics.get("warnings", ())]
    return list(dict.fromkeys([*networks.teacher_warnings, *noted]))


def _pruning(cut: Checkpoint | None, recovered: Checkpoint | None) -> Json | None:
    if cut is None or recovered is None:
        return None
    said = {key: cut.metrics[key] for key in ("measure", "target", "kept", "multiple", "before", "widths")}
    return {**said, "after": {key: cut.metrics[key] for key in ("macs", "parameters")}}


def _quantization(calibrated: Checkpoint | None, quantized: Checkpoint | None) -> Json | None:
    if calibrated is None:
        return None
    said = {key: calibrated.metrics[key] for key in ("calibration_images", "quantized_values", "left_in_float")}
    return {"mode": "ptq" if calibrated is quantized else "qad", **said}


def _legality(made: Made) -> list[Json]:
    """Every graph that TensorRT is offered, against every version that is checked by default."""
    rows = []
    for variant, model in made.shipped.items():
        if variant.endswith("-x64"):
            continue
        graph = legality.read(made.models[model].graph)
        for version in legality.VERSIONS:
            verdict = legality.check(graph, version)
            found = {
                level: [f"{f.node}: {f.message}" for f in verdict.findings if f.level == level] for level in LEVELS
            }
            rows.append(
                {
                    "model": model,
                    "version": version,
                    "jetpack": legality.JETPACKS.get(version, ""),
                    "legal": verdict.legal,
                    "note": verdict.note,
                    **{f"{level}s": messages for level, messages in found.items()},
                }
            )
    return rows


def _data(data: Dataset) -> Json:
    details, metrics = data.manifest.details, data.metrics
    return {
        **{key: details[key] for key in ("source", "classes", "counts")},
        "image_size": details["preprocessing"]["image_size"],
        **{key: metrics[key] for key in ("leaks", "duplicates", "conflicting_labels", "broken")},
    }


def _models(made: Made) -> list[Json]:
    rows = {row["model"]: row for row in made.evaluation.rows}
    return [_model(name, made, rows[name]) for name in made.models]


def _model(name: str, made: Made, row: Json) -> Json:
    role, _, variant = name.partition("-")
    checkpoint = made.networks.roles[role]
    architecture = architecture_of(checkpoint)
    arguments = ", ".join(f"{key}={value}" for key, value in architecture.arguments.items())
    stage = checkpoint.manifest.stage
    return {
        "id": name,
        "role": _role(role),
        "title": _title(role),
        "variant": variant,
        "ships": name in made.shipped.values(),
        "architecture": f"{architecture.model} {arguments}".strip(),
        "accuracy": row["accuracy"],
        "interval": row["interval"],
        "samples": row["samples"],
        "size_bytes": made.models[name].graph.stat().st_size,
        "parameters": checkpoint.metrics["parameters"],
        "macs": checkpoint.metrics["macs"],
        "seconds": stage.seconds if stage is not None else None,
        "heads": {
            name: {key: score[key] for key in ("accuracy", "interval", "samples")}
            for name, score in row.get("heads", {}).items()
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
        "model.int8.onnx": "int8 with explicit Q/DQ, for TensorRT and OpenVINO",
        "model.int8-x64.onnx": "the same network in int8 for ONNX Runtime on x86",
    }
    return [
        {"name": name, "size_bytes": record.size_bytes, "note": notes.get(name, "self-test vectors")}
        for name, record in bundle.manifest.files.items()
    ]


def _stage_title(name: str) -> str:
    if name.startswith("export-"):
        _, exported, variant = name.split("-", 2)
        return f"{_title(exported)}: ONNX {variant}"
    return _STAGE_TITLES.get(name) or _title(name)


def _role(name: str) -> str:
    """What a scheme makes beside the student has no sign of its own."""
    return name if name in _TITLES else "other"


def _title(name: str) -> str:
    return _TITLES.get(name) or name.replace("-", " ").capitalize()
