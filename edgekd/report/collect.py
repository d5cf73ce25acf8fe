"""From a finished run to the record of its report."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from edgekd import units
from edgekd.data.dataset import Dataset
from edgekd.data.sources import SPLITS
from edgekd.devices import profiles
from edgekd.export import legality, preference, variants
from edgekd.export.model_id import ModelId
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.load import Recipe
from edgekd.report.budget import judge
from edgekd.report.record import Mixed, parse
from edgekd.report.result import Result
from edgekd.runtime import backends
from edgekd.runtime.bundle import EngineKey
from edgekd.stages.benchmark import Measurements
from edgekd.stages.prune import Pruned
from edgekd.stages.quantize import Quantized
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import Done
from edgekd.version import __version__

_ANSWERS = ("problems", "majority", "correct", "balanced_accuracy", "per_class", "confused", "calibration")
_SCORES = ("accuracy", "agreement", "mAP", "logit_error")
_SET_ANSWERS = ("problems", "chance", "micro_f1", "macro_f1", "replicates")
_QUANTIZED = ("calibration_images", "calibration_set", "quantized_values", "operations", "left_in_float")
_PRUNING = (
    *("measure", "target", "kept", "multiple", "importance", "shares"),
    *("before", "widths", "whole", "sensitivity"),
)
_FINDINGS = ("leaks", "duplicates", "conflicting_labels", "conflicts", "broken", "left_out")
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg"}
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


def collect(recipe: Recipe, result: Result, log: Sequence[Done], place: Path) -> Json:
    """The report's record; see edgekd.report.record for what each field means.

    Args:
        recipe: the run's recipe.
        result: the run's artifacts.
        log: the stages in order.
        place: the folder in which the bundle was published.
    """
    measurements = [result.measured, *([result.engines] if result.engines is not None else [])]
    names = dict.fromkeys(name.variant for name in result.exported.models)
    record: Json = {
        "title": recipe.settings.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": recipe.command,
        "edgekd": __version__,
        "recipe": recipe.text,
        "data": _data(result.data),
        "stages": [
            {"name": d.name, "title": d.title, "state": d.state, "seconds": d.seconds, "facts": list(d.facts)}
            for d in log
        ],
        "models": _models(result),
        "numerics": [
            {"model": str(name), **model.metrics["numerics"]} for name, model in result.exported.models.items()
        ],
        "training": [
            {"role": role.name, "title": role.title, "epochs": _epochs(checkpoint)}
            for role, checkpoint in result.roles.items()
            if checkpoint.metrics.get("history")
        ],
        "pruning": _pruning(result.pruned),
        "quantization": _quantization(result.quantized),
        "measurements": [_measurement(record) for each in measurements for record in each.records],
        "legality": _legality(result),
        "engines": _engines(result),
        "unmeasured": {name: why for name in names if (why := variants.find(name).unmeasured) is not None},
        "loaded": _loaded(result),
        "images": _images(result) if recipe.settings.report.images else {},
        "environment": _environment(result.measured),
        "not_run": not_run(recipe.settings.bench.devices, result.exported.shipped),
        "bundle": {"path": str(place), "files": _files(result.bundle)},
        "warnings": _warnings(result),
        "left_out": [name for name in recipe.settings.variants if name not in result.exported.shipped],
        "roles": {
            role.name: {"legend": role.legend, "shape": role.shape, "colour": role.colour, "part": role.part}
            for role in result.roles
        },
    }
    budget, teacher = recipe.settings.budget, recipe.settings.teacher is not None
    if budget is not None:
        record["budget"] = judge(budget, parse(record), teacher=teacher).model_dump(mode="json")
    return record


def _engines(result: Result) -> list[Json]:
    titles, details = preference.titles(), result.bundle.details
    turns = {str(EngineKey.here(each.backend)): each.model_dump(mode="json") for each in result.measured.turns}
    return [
        {
            "title": titles.get(key.engine, key.engine),
            **asdict(key),
            "variants": order,
            "reason": details.reasons[str(key)],
            "turns": turns.get(str(key)),
        }
        for key, order in ((EngineKey.parse(text), order) for text, order in details.engines.items())
    ]


def _loaded(result: Result) -> str | None:
    """The model that edgekd.runtime.load uses on this machine as long as no engine is built."""
    backend = backends.choose(next(iter(result.exported.models.values())).graph)
    order = result.bundle.details.engines.get(str(EngineKey.here(backend.name)), ())
    return str(result.exported.shipped[order[0]]) if order else None


def _images(result: Result) -> dict[int, str]:
    """The images of the mistakes of the files that ship, as data URIs, by their index in the test split."""
    shipped = result.exported.shipped.values()
    mistakes = [each for row in result.scores.rows if ModelId.of(row) in shipped for each in row["worst"]]
    files = {each["row"]: result.scores.path / each["image"] for each in mistakes}
    return {
        row: f"data:{_MEDIA[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
        for row, file in files.items()
    }


def not_run(devices: Sequence[str], shipped: Iterable[str]) -> list[Json]:
    """Engines and devices without figures in this run, and why."""
    unusable = [(backend, backend.available()) for backend in backends.all_backends()]
    reasons = [
        {"what": backend.title if backend.opens_graphs else f"{backend.title} engines", "why": why}
        for backend, why in unusable
        if why is not None
    ]
    for profile in map(profiles.find, devices):
        if profile.kind == "local":
            continue
        reasons.append({"what": profile.title, "why": "not this machine: copy the bundle there and run `edgekd bench`"})
        for precision in sorted({variants.find(name).precision for name in shipped}):
            if profile.precisions is not None and precision not in profile.precisions:
                others = ", ".join(profile.precisions)
                why = f"the device does not support {precision}: use another precision there ({others})"
                reasons.append({"what": f"{precision} on {profile.title}", "why": why})
    return reasons


def _warnings(result: Result) -> list[str]:
    """All warnings, each once: one shown before a training may be in its manifest too."""
    metrics = [result.data.metrics, *(checkpoint.metrics for checkpoint in result.checkpoints), result.scores.metrics]
    metrics += [result.measured.metrics, result.bundle.metrics]
    noted = [warning for each in metrics for warning in each.get("warnings", ())]
    return list(dict.fromkeys([*result.warnings, *noted, *result.exported.left_out]))


def _pruning(result: Pruned | None) -> Json | None:
    if result is None:
        return None
    checkpoint = result.pruned
    metrics = checkpoint.metrics
    values = {key: metrics[key] for key in _PRUNING}
    latency = {"latency": metrics["latency"]} if "latency" in metrics else {}
    return {**values, **latency, "after": {key: metrics[key] for key in ("macs", "parameters")}}


def _quantization(result: Quantized | None) -> Json | None:
    if result is None:
        return None
    calibrated = result.calibrated
    values = {key: calibrated.metrics[key] for key in _QUANTIZED}
    searched = calibrated.metrics.get("mixed")
    mixed = {key: searched[key] for key in Mixed.model_fields} if searched is not None else None
    return {"mode": "ptq" if calibrated is result.trained else "qad", **values, "mixed": mixed}


def _legality(result: Result) -> list[Json]:
    """Check every shipped graph that is meant for TensorRT for every version that is checked by default."""
    rows = []
    for variant, model in result.exported.shipped.items():
        if not legality.is_offered(variants.find(variant).activations):
            continue
        graph = legality.read(result.exported.models[model].graph)
        for version in legality.VERSIONS:
            verdict = legality.check(graph, version)
            rows.append(
                {
                    "model": str(model),
                    "version": version,
                    "jetpack": legality.JETPACKS.get(version, ""),
                    "legal": verdict.legal,
                    "note": verdict.note,
                    "findings": [
                        {"level": found.level, "node": found.node, "message": found.message}
                        for found in verdict.findings
                    ],
                }
            )
    return rows


def _data(data: Dataset) -> Json:
    details, metrics = data.details, data.metrics
    return {
        "source": details.source,
        "classes": details.classes,
        "counts": {split: details.counts[split] for split in SPLITS if split in details.counts},
        "image_size": details.preprocessing.image_size,
        "measure": data.measure,
        **{key: metrics[key] for key in _FINDINGS},
    }


def _models(result: Result) -> list[Json]:
    rows = {ModelId.of(row): row for row in result.scores.rows}
    return [_model(name, result, rows[name]) for name in result.exported.models]


def _model(name: ModelId, result: Result, row: Json) -> Json:
    role, checkpoint = next(found for found in result.roles.items() if found[0].name == name.role)
    architecture = checkpoint.details.architecture
    arguments = ", ".join(f"{key}={value}" for key, value in architecture.arguments.items())
    stage = checkpoint.manifest.stage
    return {
        "id": str(name),
        "role": role.name,
        "title": role.title,
        "variant": name.variant,
        "precision": variants.find(name.variant).precision,
        "ships": name in result.exported.shipped.values(),
        "architecture": f"{architecture.model} {arguments}".strip(),
        "interval": row["interval"],
        "samples": row["samples"],
        **{key: row[key] for key in (*_SCORES, *_ANSWERS, *_SET_ANSWERS) if key in row},
        "worst": [{key: value for key, value in mistake.items() if key != "image"} for mistake in row["worst"]],
        "size_bytes": result.exported.models[name].graph.stat().st_size,
        "parameters": checkpoint.metrics["parameters"],
        "macs": checkpoint.metrics["macs"],
        "seconds": stage.seconds if stage is not None else None,
        "heads": {
            head: {key: score[key] for key in ("accuracy", "interval", "samples")}
            for head, score in row.get("heads", {}).items()
        },
    }


def _epochs(checkpoint: Checkpoint) -> list[Json]:
    keys = ("epoch", "loss", "validation_accuracy", "validation_agreement", "validation_mAP")
    return [{key: record[key] for key in keys if key in record} for record in checkpoint.metrics["history"]]


def _measurement(record: Json) -> Json:
    flags = []
    if record["provenance"] == "emulated":
        flags.append("the processor was emulated: this is the latency of no hardware")
    if record["throttling"]["flagged"]:
        flags.append("slower towards the end: throttled or disturbed")
    if record["busy"]:
        flags.append("the machine was busy with other work")
    return {**{key: record[key] for key in _MEASURED}, "peak_bytes": record["memory"]["peak_bytes"], "flags": flags}


def _environment(measurements: Measurements) -> Json:
    """The environment of the measurements, and the versions that trained the networks; unknown values are left out."""
    records = measurements.records
    if not records:
        return {}
    known: Json = {key: value for key, value in records[0]["environment"].items() if value is not None}
    versions = measurements.manifest.versions
    trained_with = {key: versions[key] for key in ("torch", "torchvision") if versions.get(key) is not None}
    engines = known.pop("engines")
    memory = units.size(known.pop("ram_bytes"))
    if "instruction_sets" in known:
        known["instruction_sets"] = ", ".join(known["instruction_sets"])
    return {
        **known,
        **engines,
        "memory": memory,
        **{key: value for key, value in trained_with.items() if value is not None},
    }


def _files(bundle: Artifact) -> list[Json]:
    notes = {"bundle.json": "preprocessing, classes, metrics, digests", "card.md": "model card"}
    notes |= {f"model.{name}.onnx": variants.find(name).note for name in bundle.details.variants}
    return [
        {"name": name, "size_bytes": record.size_bytes, "note": notes.get(name, "test vectors")}
        for name, record in bundle.manifest.files.items()
    ]
