"""Packing what ships: graphs, how to feed them, and vectors with which any loader can test itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.export.card import card
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.preference import preferences
from edgekd.models.checkpoint import Checkpoint
from edgekd.runtime.backends.onnxruntime import OrtSession
from edgekd.runtime.bundle import FORMAT, MANIFEST, checksum
from edgekd.runtime.preprocess import Floats
from edgekd.store.artifacts import Artifact, Details, Json, file_digest, versions, write_json

VERSION = 2
_VECTORS = 8
# How far another engine or processor may be from the recorded outputs, relative to the largest one.
# Int8 is coarse: a value that falls to the other side of a step moves everything behind it.
_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2, "int8-x64": 0.2}


class BundleDetails(Details):
    """What a bundle holds; `engines`: for each engine the variants in the order in which it should take them."""

    name: str
    variants: tuple[str, ...]
    engines: dict[str, tuple[str, ...]]


class Bundle(Artifact[BundleDetails]):
    """What ships: see edgekd.runtime.bundle for its own manifest, which needs none of this package's workstation."""

    kind = "bundle"


def pack(
    name: str,
    shipped: Mapping[str, str],
    models: Mapping[str, OnnxModel],
    student: Checkpoint,
    evaluated: Sequence[Json],
    measured: Sequence[Json],
    data: Dataset,
    out: Path,
) -> Bundle:
    """Write a bundle into the empty folder `out`.

    Args:
        shipped: the variants, each with the name of its model, as it stands in `models` and in the evaluation.
        student: the network that ships in float.
        evaluated: the evaluation's rows, one per model.
        measured: the benchmark's records, on this machine; they decide which variant ONNX Runtime takes.
        data: its first validation images become the vectors.
    """
    preprocessing, reader = student.details.preprocessing, open_reader(data, "validation")
    pixels = reader.pixels(reader.first(_VECTORS))
    inputs = preprocessing.normalise(pixels)
    (out / "vectors").mkdir()
    np.save(out / "vectors" / "images.npy", pixels)
    np.save(out / "vectors" / "input.npy", inputs)
    scores = {row["model"]: row for row in evaluated}
    smallest = min((each["batch_size"] for each in measured), default=1)
    latencies = {each["model"]: each for each in measured if each["batch_size"] == smallest}
    records: Json = {
        variant: _variant(variant, models[model], scores[model], latencies.get(model), inputs, out)
        for variant, model in shipped.items()
    }
    (out / "card.md").write_text(card(name, student.details.architecture, student, records, data))
    p50 = {model: float(record["latency_ms"]["p50"]) for model, record in latencies.items()}
    manifest: Json = {
        "format": FORMAT,
        "name": name,
        "classes": list(student.classes),
        "heads": _heads(student),
        "preprocessing": preprocessing.to_json(),
        "tensors": _tensors(models[next(iter(shipped.values()))]),
        "variants": records,
        "engines": preferences(shipped, scores, p50),
        "vectors": {"images": "vectors/images.npy", "inputs": "vectors/input.npy"},
        "provenance": _provenance(student, data),
    }
    manifest["files"] = _digests(out)
    write_json(out / MANIFEST, {**manifest, "checksum": checksum(manifest)})
    details = BundleDetails(
        name=name,
        variants=tuple(shipped),
        engines={engine: tuple(order) for engine, order in manifest["engines"].items()},
    )
    return Bundle.seal(out, details=details)


def publish(bundle: Bundle, place: Path) -> None:
    """Copy a bundle to where people look for it, replacing what lies there only once the copy is whole."""
    beside = place.with_name(f".{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(bundle.path, beside, ignore=shutil.ignore_patterns("manifest.json"))
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _variant(variant: str, model: OnnxModel, metrics: Json, latency: Json | None, inputs: Floats, out: Path) -> Json:
    """Copy a graph in, record what it answers to the vectors, and describe it."""
    file, vectors = f"model.{variant}.onnx", f"vectors/logits.{variant}.npy"
    shutil.copyfile(model.graph, out / file)
    np.save(out / vectors, OrtSession(model.graph, as_written=variant == "int8").bind(inputs)())
    return {
        "file": file,
        "precision": model.precision,
        "opset": model.details.opset,
        "source": model.details.source,
        "metrics": metrics,
        "latency": _latency(latency) if latency is not None else None,
        "numerics": model.metrics["numerics"],
        "vectors": vectors,
        "tolerance": _TOLERANCE[variant],
    }


def _latency(record: Json) -> Json:
    """A call's latency, and what it was measured on."""
    return {
        "p50_ms": record["latency_ms"]["p50"],
        "p99_ms": record["latency_ms"]["p99"],
        **{key: record[key] for key in ("provenance", "engine", "batch_size", "threads")},
        "machine": record["environment"]["cpu"],
    }


def _heads(student: Checkpoint) -> Json:
    """Further questions that the network answers, and where in its outputs."""
    heads, first = student.details.architecture.heads, len(student.classes)
    columns: Json = {}
    for name, classes in heads.items():
        columns[name] = {"classes": list(classes), "columns": [first, first + len(classes)]}
        first += len(classes)
    return columns


def _provenance(student: Checkpoint, data: Dataset) -> Json:
    return {
        "architecture": student.details.architecture.model_dump(mode="json"),
        "parameters": student.metrics["parameters"],
        "macs": student.metrics["macs"],
        "student": student.digest,
        "data": data.digest,
        "training": student.details.training.model_dump(mode="json"),
        "versions": versions(),
    }


def _tensors(model: OnnxModel) -> Json:
    session = OrtSession(model.graph)
    sides = {"input": session.inputs[0], "output": session.outputs[0]}
    return {side: {"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for side, t in sides.items()}


def _digests(folder: Path) -> Json:
    return {
        file.relative_to(folder).as_posix(): {"sha256": file_digest(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
