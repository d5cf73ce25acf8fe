"""Packing what ships: graphs, how to feed them, and vectors with which any loader can test itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.reader import open_reader
from edgekd.export import variants
from edgekd.export.card import card
from edgekd.export.model_id import ModelId
from edgekd.export.preference import preferences
from edgekd.models.checkpoint import architecture_of, preprocessing_of
from edgekd.runtime.backends import open_reference
from edgekd.runtime.bundle import FORMAT, MANIFEST
from edgekd.runtime.preprocess import Floats
from edgekd.store.artifacts import (
    Bundle,
    Checkpoint,
    Dataset,
    Evaluation,
    Json,
    Measurements,
    OnnxModel,
    file_digest,
    versions,
    write_json,
)

VERSION = 3
_VECTORS = 8


@dataclass(frozen=True)
class Contents:
    """What a bundle ships.

    Attributes:
        name: the bundle's.
        shipped: its variants, each with its model; the order is kept.
        models: the run's exported files, those that ship among them.
        student: the network that ships in float.
    """

    name: str
    shipped: Mapping[str, ModelId]
    models: Mapping[ModelId, OnnxModel]
    student: Checkpoint


def pack(contents: Contents, evaluation: Evaluation, measurements: Measurements, data: Dataset, out: Path) -> Bundle:
    """Write a bundle into the empty folder `out`.

    Args:
        evaluation: of all models that ship.
        measurements: on this machine; they decide which variant an engine that runs graphs takes here.
        data: its first validation images become the vectors.

    Raises:
        BackendError: no engine here computes a graph as it is written.
    """
    student, shipped = contents.student, contents.shipped
    preprocessing, reader = preprocessing_of(student), open_reader(data, "validation")
    pixels = reader.pixels(reader.first(_VECTORS))
    inputs = preprocessing.normalise(pixels)
    (out / "vectors").mkdir()
    np.save(out / "vectors" / "images.npy", pixels)
    np.save(out / "vectors" / "input.npy", inputs)
    scores = {ModelId.of(row): row for row in evaluation.rows}
    latencies = _smallest_batch(measurements)
    # Each file's latency in the engine that was measured first; which one stands beside it.
    first = next(iter(latencies.values()), {})
    records: Json = {
        variant: {
            **_variant(variant, contents.models[model], inputs, out),
            "metrics": scores[model],
            "latency": _latency(first[model]) if model in first else None,
        }
        for variant, model in shipped.items()
    }
    (out / "card.md").write_text(card(contents.name, architecture_of(student), student, records, data))
    p50 = {
        backend: {model: float(record["latency_ms"]["p50"]) for model, record in rows.items()}
        for backend, rows in latencies.items()
    }
    manifest: Json = {
        "format": FORMAT,
        "name": contents.name,
        "classes": list(student.classes),
        "heads": _heads(student),
        "preprocessing": preprocessing.to_json(),
        "tensors": _tensors(contents.models[next(iter(shipped.values()))]),
        "variants": records,
        "engines": preferences(shipped, scores, p50),
        "vectors": {"images": "vectors/images.npy", "inputs": "vectors/input.npy"},
        "provenance": _provenance(student, data),
    }
    write_json(out / MANIFEST, {**manifest, "files": _digests(out)})
    return Bundle.seal(out, details={"name": contents.name, "variants": list(shipped), "engines": manifest["engines"]})


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


def _smallest_batch(measurements: Measurements) -> dict[str, dict[ModelId, Json]]:
    """The records of the smallest batch, by backend and model."""
    smallest = min((each["batch_size"] for each in measurements.records), default=1)
    found: dict[str, dict[ModelId, Json]] = {}
    for record in measurements.records:
        if record["batch_size"] == smallest:
            found.setdefault(record["backend"], {})[ModelId.of(record)] = record
    return found


def _variant(name: str, model: OnnxModel, inputs: Floats, out: Path) -> Json:
    """Copy a graph in, record what it answers to the vectors, and describe it."""
    variant = variants.find(name)
    file, vectors = f"model.{name}.onnx", f"vectors/logits.{name}.npy"
    shutil.copyfile(model.graph, out / file)
    with open_reference(model.graph, as_written=variant.as_written) as session:
        np.save(out / vectors, session.bind(inputs)())
    return {
        "file": file,
        "precision": model.precision,
        "activations": variant.activations,
        "opset": model.manifest.details["opset"],
        "source": model.manifest.details["source"],
        "numerics": model.metrics["numerics"],
        "vectors": vectors,
        "tolerance": variant.vector_tolerance,
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
    heads, first = architecture_of(student).heads, len(student.classes)
    columns: Json = {}
    for name, classes in heads.items():
        columns[name] = {"classes": list(classes), "columns": [first, first + len(classes)]}
        first += len(classes)
    return columns


def _provenance(student: Checkpoint, data: Dataset) -> Json:
    return {
        "architecture": architecture_of(student).model_dump(mode="json"),
        "parameters": student.metrics["parameters"],
        "macs": student.metrics["macs"],
        "student": student.digest,
        "data": data.digest,
        "training": student.manifest.details["training"],
        "versions": versions(),
    }


def _tensors(model: OnnxModel) -> Json:
    with open_reference(model.graph, as_written=False) as session:
        sides = {"input": session.inputs[0], "output": session.outputs[0]}
    return {side: {"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for side, t in sides.items()}


def _digests(folder: Path) -> Json:
    return {
        file.relative_to(folder).as_posix(): {"sha256": file_digest(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
