"""Packing what ships: graphs, how to feed them, and vectors with which any loader can test itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekd.artifacts import Bundle, Checkpoint, Dataset, Evaluation, Json, OnnxModel, file_digest, versions, write_json
from edgekd.export.card import card
from edgekd.export.numerics import real_pixels
from edgekd.models.checkpoint import architecture_of, preprocessing_of
from edgekd.runtime.backends import open_session
from edgekd.runtime.bundle import FORMAT, MANIFEST
from edgekd.runtime.preprocess import Floats

VERSION = 1
_VECTORS = 8
# How far another engine or processor may be from the recorded outputs, relative to the largest one.
_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}


def pack(
    name: str,
    variants: Mapping[str, OnnxModel],
    student: Checkpoint,
    evaluation: Evaluation,
    data: Dataset,
    out: Path,
) -> Bundle:
    """Write a bundle into the empty folder `out`.

    Args:
        variants: graphs by variant name.
        evaluation: has a row "student-<variant>" for each of them.
        data: its first validation pictures become the vectors.
    """
    preprocessing = preprocessing_of(student)
    pixels = real_pixels(data, _VECTORS)
    inputs = preprocessing.normalise(pixels)
    (out / "vectors").mkdir()
    np.save(out / "vectors" / "images.npy", pixels)
    np.save(out / "vectors" / "input.npy", inputs)
    rows = {row["model"]: row for row in evaluation.rows}
    records: Json = {
        variant: _variant(variant, model, rows[f"student-{variant}"], inputs, out)
        for variant, model in variants.items()
    }
    (out / "card.md").write_text(card(name, architecture_of(student), student, records, data))
    manifest: Json = {
        "format": FORMAT,
        "name": name,
        "classes": list(student.classes),
        "preprocessing": preprocessing.to_json(),
        "tensors": _tensors(next(iter(variants.values()))),
        "variants": records,
        "vectors": {"images": "vectors/images.npy", "inputs": "vectors/input.npy"},
        "provenance": _provenance(student, data),
    }
    write_json(out / MANIFEST, {**manifest, "files": _digests(out)})
    return Bundle.seal(out, details={"name": name, "variants": list(variants)})


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


def _variant(variant: str, model: OnnxModel, metrics: Json, inputs: Floats, out: Path) -> Json:
    """Copy a graph in, record what it answers to the vectors, and describe it."""
    file, vectors = f"model.{variant}.onnx", f"vectors/logits.{variant}.npy"
    shutil.copyfile(model.graph, out / file)
    np.save(out / vectors, open_session(model.graph).bind(inputs)())
    return {
        "file": file,
        "precision": model.precision,
        "opset": model.manifest.details["opset"],
        "metrics": metrics,
        "numerics": model.metrics["numerics"],
        "vectors": vectors,
        "tolerance": _TOLERANCE[variant],
    }


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
    session = open_session(model.graph)
    sides = {"input": session.inputs[0], "output": session.outputs[0]}
    return {side: {"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for side, t in sides.items()}


def _digests(folder: Path) -> Json:
    return {
        file.relative_to(folder).as_posix(): {"sha256": file_digest(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
