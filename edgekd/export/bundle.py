"""Packs the bundle: graphs, their preprocessing, and test vectors with which any loader can verify itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import model_validator

from edgekd.bench.turns import Turns
from edgekd.data.dataset import Dataset
from edgekd.data.reader import open_reader
from edgekd.errors import ArtifactError, BundleError
from edgekd.export import variants
from edgekd.export.accuracy_budget import AccuracyBudget
from edgekd.export.card import card
from edgekd.export.model_id import ModelId
from edgekd.export.onnx_model import OnnxModel
from edgekd.export.preference import Evidence, Preference, fusions_of, preferences, titles
from edgekd.models.checkpoint import Checkpoint
from edgekd.runtime.backends import open_reference
from edgekd.runtime.bundle import FORMAT, MANIFEST, EngineKey, checksum, read
from edgekd.runtime.images import open_upright
from edgekd.runtime.preprocess import Floats, Preprocessing
from edgekd.store.artifacts import Artifact, Details, Json, file_digest, versions, write_json

VERSION = 10
_VECTORS = 8
_VECTOR_FILES = {
    "images": "vectors/images.npy",
    "inputs": "vectors/input.npy",
    "photo": "vectors/photo.png",
    "pixels": "vectors/photo.npy",
}
# What an evaluation holds about single test images: an app needs none of it, and a file's name may be private.
_OF_IMAGES = ("correct", "worst", "replicates", "thresholds")
_DECIMALS = 6
# Of EXIF: how an image is turned to be upright.
_ORIENTATION, _QUARTER_CLOCKWISE = 0x0112, 6


@dataclass(frozen=True)
class Contents:
    """The contents of a bundle.

    Attributes:
        name: the bundle's.
        shipped: its variants in order, each with its model.
        models: all exported files of the run.
        student: the float network that ships.
        warnings: about the files that ship.
        budget: of accuracy; None: the recipe has none.
    """

    name: str
    shipped: Mapping[str, ModelId]
    models: Mapping[ModelId, OnnxModel]
    student: Checkpoint
    warnings: tuple[str, ...] = ()
    budget: AccuracyBudget | None = None


class BundleDetails(Details):
    """What describes a bundle.

    Attributes:
        engines: the variants in the order in which each engine should use them, by EngineKey.
        reasons: how that order was decided, by EngineKey.
    """

    name: str
    variants: tuple[str, ...]
    engines: dict[str, tuple[str, ...]]
    reasons: dict[str, str]

    @model_validator(mode="after")
    def _engines_have_variants(self) -> BundleDetails:
        for engine, order in self.engines.items():
            if unknown := [name for name in order if name not in self.variants]:
                raise ValueError(f"engines.{engine} has {unknown[0]!r}, which is not a variant")
        return self


class Bundle(Artifact[BundleDetails]):
    """The bundle that ships; its own manifest, bundle.json, is read by edgekd.runtime.bundle without this package."""

    kind = "bundle"


def pack(
    contents: Contents,
    evaluated: Sequence[Json],
    measured: Sequence[Json],
    data: Dataset,
    out: Path,
    *,
    turns: Sequence[Turns] = (),
) -> Bundle:
    """Write a bundle into the empty folder `out`.

    Args:
        contents: what to pack.
        evaluated: the evaluation's rows, one per model that ships.
        measured: the benchmark's records on this machine.
        turns: the latencies in turns, by which engines that run graphs here order the variants.
        data: its first validation images become the test vectors.
        out: an empty folder, which becomes the artifact.

    Raises:
        BackendError: no engine here computes a graph as it is written.
    """
    inputs = _write_vectors(contents.student.details.preprocessing, data, out / "vectors")
    scores = {ModelId.of(row): row for row in evaluated}
    first = _first_measured(measured)
    records: Json = {
        variant: {
            **_variant(variant, contents.models[model], inputs, out),
            "metrics": _metrics(scores[model]),
            **({"thresholds": scores[model]["thresholds"]} if data.multilabel else {}),
            "latency": _latency(first[model]) if model in first else None,
        }
        for variant, model in contents.shipped.items()
    }
    warnings = [f"{name}: {problem}" for name, record in records.items() for problem in record["metrics"]["problems"]]
    architecture = contents.student.details.architecture
    preferred = _preferred(contents, scores, turns)
    engines = {engine: preference.order for engine, preference in preferred.items()}
    reasons = {engine: preference.reason for engine, preference in preferred.items()}
    text = card(contents.name, architecture, contents.student, records, data, warnings, decisions(reasons))
    (out / "card.md").write_text(text, encoding="utf-8")
    _write_manifest(
        {
            **_description(contents, data),
            "variants": records,
            "engines": engines,
            "reasons": reasons,
            "measured": {str(EngineKey.here(each.backend)): each.model_dump(mode="json") for each in turns},
            "warnings": [*warnings, *contents.warnings],
        },
        out,
    )
    orders = {engine: tuple(order) for engine, order in engines.items()}
    details = BundleDetails(name=contents.name, variants=tuple(contents.shipped), engines=orders, reasons=reasons)
    return Bundle.seal(out, details=details, metrics={"warnings": list(contents.warnings)})


def _preferred(contents: Contents, scores: Mapping[ModelId, Json], turns: Sequence[Turns]) -> dict[str, Preference]:
    """What each engine should use, and why; by EngineKey. Raises BackendError where an engine refuses a graph."""
    graphs = {variant: contents.models[model].graph for variant, model in contents.shipped.items()}
    evidence = Evidence(
        contents.shipped,
        scores,
        sizes={variant: graph.stat().st_size for variant, graph in graphs.items()},
        turns={each.backend: each for each in turns},
        fusions=fusions_of(graphs),
        budget=contents.budget,
    )
    return {str(engine): preference for engine, preference in preferences(evidence).items()}


def _description(contents: Contents, data: Dataset) -> Json:
    """The entries of the manifest that all variants have in common."""
    student = contents.student
    return {
        "format": FORMAT,
        "name": contents.name,
        "task": data.details.task,
        "classes": list(student.classes),
        "heads": _heads(student),
        "preprocessing": student.details.preprocessing.to_json(),
        "tensors": _tensors(contents.models[next(iter(contents.shipped.values()))]),
        "vectors": _VECTOR_FILES,
        "provenance": _provenance(student, data),
    }


def _write_manifest(entries: Json, out: Path) -> None:
    """Write bundle.json, with the digests of all other files; it is the last that is written."""
    manifest = {**entries, "files": _digests(out)}
    write_json(out / MANIFEST, {**manifest, "checksum": checksum(manifest)})


def _write_vectors(preprocessing: Preprocessing, data: Dataset, out: Path) -> Floats:
    """Write the test vectors into the new folder `out`; returns their inputs (N, C, H, W)."""
    reader = open_reader(data, "validation")
    pixels = reader.pixels(reader.first(_VECTORS))
    inputs = preprocessing.normalise(pixels)
    out.mkdir()
    np.save(out / "images.npy", pixels)
    np.save(out / "input.npy", inputs)
    _write_photo(preprocessing, out)
    return inputs


def _metrics(row: Json) -> Json:
    """An evaluation's row without its longest lists and what it holds about single images; also of heads."""
    kept = {key: value for key, value in row.items() if key not in _OF_IMAGES}
    if "per_class" in row:  # not without labels
        kept["per_class"] = {
            name: round(each["average_precision" if "mAP" in row else "accuracy"], _DECIMALS)
            for name, each in row["per_class"].items()
        }
    if row.get("calibration") is not None:
        kept["calibration"] = {key: value for key, value in row["calibration"].items() if key != "bins"}
    if "heads" in row:
        kept["heads"] = {head: _metrics(score) for head, score in row["heads"].items()}
    return kept


def _write_photo(preprocessing: Preprocessing, out: Path) -> None:
    """An image as a camera writes it, and the pixels that it becomes, to prove that a loader turns, crops and scales.

    It is drawn: not square, larger than the network's images, to be turned by its EXIF orientation, partly transparent.
    """
    side = max(preprocessing.resize)
    height, width = 2 * side + 5, 3 * side + 8
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127.5 + 127.5 * np.sin(rows / a + columns / b) for a, b in ((9.0, 31.0), (23.0, 7.0), (-13.0, 17.0))]
    alpha = np.where(rows + columns < height, 96, 255)
    photo = Image.fromarray(np.dstack([*waves, alpha]).round().astype(np.uint8), "RGBA")
    exif = photo.getexif()
    exif[_ORIENTATION] = _QUARTER_CLOCKWISE
    photo.save(out / "photo.png", exif=exif)
    np.save(out / "photo.npy", preprocessing.pixels(open_upright(out / "photo.png")))


def publish(bundle: Bundle, place: Path) -> None:
    """Copy a bundle to `place`, replacing an earlier one only once the copy is complete.

    Raises:
        ArtifactError: its bundle.json is not valid, or is of another bundle than its manifest.json.
        OSError: no room on the disk.
    """
    _check_described(bundle)
    temporary = place.with_name(f".{place.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(bundle.path, temporary, ignore=shutil.ignore_patterns("manifest.json"))
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    temporary.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _check_described(bundle: Bundle) -> None:
    """Raises ArtifactError for a bundle that no app could load, or that is another than the run's."""
    try:
        found = tuple(read(bundle.path).variants)
    except BundleError as error:
        raise ArtifactError(error.what, found=error.found, hint=f"delete {bundle.path} to make it again") from error
    if set(found) != set(bundle.details.variants):
        raise ArtifactError(
            f"{bundle.path / MANIFEST} has other variants than the run",
            found=", ".join(found),
            allowed=", ".join(bundle.details.variants),
            hint=f"delete {bundle.path} to make it again",
        )


def decisions(reasons: Mapping[str, str]) -> dict[str, str]:
    """Why an engine has its default on this kind of machine, by its title with the machine."""
    names = titles()
    keys = {key: EngineKey.parse(key) for key in reasons}
    return {
        f"{names.get(key.engine, key.engine)} on {key.machine}": reasons[text]
        for text, key in keys.items()
        if key.machine is not None
    }


def _first_measured(measured: Sequence[Json]) -> dict[ModelId, Json]:
    """Each file's record of the smallest batch, in the engine that was measured first; the record names the engine."""
    smallest = min((each["batch_size"] for each in measured), default=1)
    records = [record for record in measured if record["batch_size"] == smallest]
    return {ModelId.of(record): record for record in records if record["backend"] == records[0]["backend"]}


def _variant(name: str, model: OnnxModel, inputs: Floats, out: Path) -> Json:
    """Copy a graph into the bundle, save its outputs for the test vectors, and return its record."""
    variant = variants.find(name)
    file, vectors = f"model.{name}.onnx", f"vectors/logits.{name}.npy"
    shutil.copyfile(model.graph, out / file)
    with open_reference(model.graph, as_written=variant.as_written) as session:
        np.save(out / vectors, session.bind(inputs)())
    return {
        "file": file,
        "precision": model.precision,
        "activations": variant.activations,
        "opset": model.details.opset,
        "source": model.details.source,
        "numerics": model.metrics["numerics"],
        "vectors": vectors,
        "tolerance": model.metrics["numerics"]["tolerance"]["difference"],
    }


def _latency(record: Json) -> Json:
    """The latency of a call, and the engine and machine that it was measured on."""
    return {
        "p50_ms": record["latency_ms"]["p50"],
        "p99_ms": record["latency_ms"]["p99"],
        **{key: record[key] for key in ("provenance", "engine", "batch_size", "threads")},
        "machine": record["environment"]["cpu"],
    }


def _heads(student: Checkpoint) -> Json:
    """The network's additional heads: their classes, and their columns in the output."""
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
    with open_reference(model.graph, as_written=False) as session:
        sides = {"input": session.inputs[0], "output": session.outputs[0]}
    return {side: {"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for side, t in sides.items()}


def _digests(folder: Path) -> Json:
    return {
        file.relative_to(folder).as_posix(): {"sha256": file_digest(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
