"""Reads a bundle: its manifest, and the digests of all its files, with the standard library only.

bundle.json has a checksum of itself and the digests of all files of the bundle. A graph `model.*.onnx` or a file in
`vectors/` that it does not list is refused. Other files in the folder, such as an engine or a note, are ignored.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from pathlib import Path, PurePosixPath
from typing import Any

from edgekd import plugins, safe_json
from edgekd.errors import BundleError
from edgekd.runtime.fields import field, items, mapping, number, text, texts, whole
from edgekd.runtime.preprocess import Preprocessing

MANIFEST = "bundle.json"
FORMAT = 2
GRAPHS = "model.*.onnx"
VECTORS = "vectors"
_LARGEST = 2**31
_TASKS = ("single-label", "multilabel")


@dataclass(frozen=True)
class VariantRecord:
    """One graph of the bundle.

    Attributes:
        file: its name, relative to the bundle.
        precision: "fp32", "fp16", …
        activations: the type of the activations in the graph, which determines the engines that run it: see Backend.
        metrics: the accuracy and further metrics of this file.
        vectors: the file with the expected outputs, relative to the bundle.
        tolerance: the largest accepted deviation from the expected outputs, relative to the largest of them.
        thresholds: with several labels per image, the probability from which on each class is answered.
    """

    file: str
    precision: str
    activations: str
    metrics: Mapping[str, Any]
    vectors: str
    tolerance: float
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Head:
    """An additional head of the network: its classes, and the columns of the output with its logits."""

    classes: tuple[str, ...]
    columns: slice


@dataclass(frozen=True)
class EngineKey:
    """An engine by its backend's name, on one kind of machine, or on any that has no order of its own.

    In JSON it is "<engine>" or "<engine>-<machine>"; no backend's name has a hyphen.

    Attributes:
        machine: as platform.machine() reports it.
    """

    engine: str
    machine: str | None = None

    @classmethod
    def here(cls, engine: str) -> EngineKey:
        return cls(engine, platform.machine())

    @classmethod
    def parse(cls, text: str) -> EngineKey:
        engine, _, machine = text.partition("-")
        return cls(engine, machine or None)

    def __str__(self) -> str:
        return self.engine if self.machine is None else f"{self.engine}-{self.machine}"


@dataclass(frozen=True)
class MeasuredOn:
    """The machine that an engine's order was measured on; see edgekd.runtime.processor."""

    cpu: str
    instruction_sets: tuple[str, ...] | None


@dataclass(frozen=True)
class BundleManifest:
    """The content of bundle.json.

    Attributes:
        path: the bundle's folder.
        classes: of the main head, whose logits are the first outputs.
        images, inputs: files of the test vectors, relative to the bundle.
        task: "single-label": the classes exclude each other; "multilabel": an image has any number of them.
        photo: an image file as a camera writes it, and the pixels that it becomes; None in bundles of earlier versions.
        heads: additional heads, by name.
        files: the sha256 of each file, by its name relative to the bundle.
        engines: the variants in the order in which each engine should use them.
        checksum: of the manifest, which has the digests of all files.
        measured: where the orders were measured that were.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    variants: Mapping[str, VariantRecord]
    images: str
    inputs: str
    files: Mapping[str, str]
    provenance: Mapping[str, Any]
    checksum: str
    engines: Mapping[EngineKey, tuple[str, ...]] = with_default(default_factory=dict)
    measured: Mapping[EngineKey, MeasuredOn] = with_default(default_factory=dict)
    heads: Mapping[str, Head] = with_default(default_factory=dict)
    photo: tuple[str, str] | None = None
    task: str = "single-label"

    def preferred(self, engine: str, machine: str | None = None, *, measured: bool = True) -> tuple[str, ...]:
        """The variants that an engine should use, best first: the bundle's order, else the backend's default.

        Args:
            engine: a backend's name.
            machine: as platform.machine() reports it; None: this machine.
            measured: whether an order that was measured counts; else the one for any machine.

        Raises:
            UnknownNameError: the bundle has no order for this engine, and there is no such backend.
        """
        here = machine or platform.machine()
        for key in (EngineKey(engine, here), EngineKey(engine)):
            if key in self.engines and (measured or key not in self.measured):
                return self.engines[key]
        usual = plugins.load("backend", engine).activations(here)
        return tuple(name for each in usual for name, record in self.variants.items() if record.activations == each)

    def graph(self, variant: str) -> Path:
        return self.path / self.variants[variant].file

    def graph_sha256(self, variant: str) -> str:
        return self.files[self.variants[variant].file]


def read(path: Path | str) -> BundleManifest:
    """Read a bundle's manifest, and verify its checksum and the digest of every file.

    Raises:
        BundleError: not a bundle, a manifest that was changed or is not valid, a missing or changed file, or a graph or
            test vector that the manifest does not list.
    """
    folder = Path(path)
    raw = _raw_manifest(folder)
    if raw.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is a bundle in another format",
            found=raw.get("format"),
            allowed=FORMAT,
            hint="load it with the edgekd version that wrote it, or export it again",
        )
    _check_unchanged(folder, raw)
    try:
        manifest = _parse(folder, raw)
    except ValueError as error:
        raise BundleError(
            f"{folder / MANIFEST} is not valid", found=str(error), hint="copy the bundle again, or export it again"
        ) from None
    _check_files(manifest)
    _check_nothing_added(manifest)
    return manifest


def checksum(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest without its `checksum`, as JSON with sorted keys and no spaces."""
    content = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _raw_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if folder.is_file():
        raise BundleError(
            f"{folder} is not a bundle",
            found="one file",
            allowed=f"a folder with a {MANIFEST}",
            hint=f"pass the bundle's folder; a single file can only be measured: edgekd bench {folder}",
        )
    if not file.is_file():
        raise BundleError(
            f"{folder} is not a bundle", found=f"no {MANIFEST} in it", hint="pass the folder that `edgekd run` printed"
        )
    try:
        raw = safe_json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read as JSON", found=str(error), hint="copy the bundle again") from None
    if not isinstance(raw, dict):
        raise BundleError(f"{file} is not a JSON object", found=type(raw).__name__, hint="copy the bundle again")
    return raw


def _parse(folder: Path, raw: Mapping[str, Any]) -> BundleManifest:
    """Raises ValueError for what is missing or wrong."""
    classes = texts(field(raw, "classes"), "classes")
    if not classes:
        raise ValueError("classes is empty")
    task = _task(raw)
    probabilities = len(classes) if task == "multilabel" else None
    variants = {
        name: _variant(mapping(value, f"variants.{name}"), f"variants.{name}.", probabilities)
        for name, value in mapping(field(raw, "variants"), "variants").items()
    }
    vectors = mapping(field(raw, "vectors"), "vectors")
    engines = mapping(raw.get("engines", {}), "engines")
    return BundleManifest(
        path=folder,
        name=text(field(raw, "name"), "name"),
        classes=classes,
        preprocessing=Preprocessing.from_json(mapping(field(raw, "preprocessing"), "preprocessing")),
        variants=variants,
        images=_file(vectors, "images", "vectors."),
        inputs=_file(vectors, "inputs", "vectors."),
        files={
            _inside(name): text(field(mapping(record, f"files.{name}"), "sha256", f"files.{name}."), f"files.{name}")
            for name, record in mapping(field(raw, "files"), "files").items()
        },
        provenance=mapping(field(raw, "provenance"), "provenance"),
        checksum=text(field(raw, "checksum"), "checksum"),
        engines={EngineKey.parse(key): _order(key, order, variants) for key, order in engines.items()},
        measured={
            EngineKey.parse(key): _measured_on(mapping(value, f"measured.{key}"), f"measured.{key}.")
            for key, value in mapping(raw.get("measured", {}), "measured").items()
        },
        heads=_heads(mapping(raw.get("heads", {}), "heads"), len(classes)),
        photo=(_file(vectors, "photo", "vectors."), _file(vectors, "pixels", "vectors."))
        if "photo" in vectors
        else None,
        task=task,
    )


def _task(raw: Mapping[str, Any]) -> str:
    task = raw.get("task", _TASKS[0])
    if task not in _TASKS:
        raise ValueError(f"task is {task!r}, not one of {', '.join(_TASKS)}")
    return str(task)


def _variant(value: Mapping[str, Any], above: str, probabilities: int | None) -> VariantRecord:
    """One variant; `probabilities`: how many thresholds it must have, None: none."""
    return VariantRecord(
        file=_file(value, "file", above),
        precision=text(field(value, "precision", above), f"{above}precision"),
        activations=text(field(value, "activations", above), f"{above}activations"),
        metrics=mapping(field(value, "metrics", above), f"{above}metrics"),
        vectors=_file(value, "vectors", above),
        tolerance=number(field(value, "tolerance", above), f"{above}tolerance", 0.0, _LARGEST),
        thresholds=None if probabilities is None else _thresholds(value, above, probabilities),
    )


def _thresholds(value: Mapping[str, Any], above: str, count: int) -> tuple[float, ...]:
    place = f"{above}thresholds"
    found = tuple(number(each, place, 0.0, 1.0) for each in items(field(value, "thresholds", above), place))
    if len(found) != count:
        raise ValueError(f"{place} is not one probability for each class")
    return found


def _heads(raw: Mapping[str, Any], first: int) -> dict[str, Head]:
    """The additional heads; each one's columns must follow those of the one before, the first beginning at `first`."""
    found = {name: mapping(value, f"heads.{name}") for name, value in raw.items()}
    columns = {
        name: [whole(each, f"heads.{name}.columns", 0, _LARGEST) for each in _columns(value, name)]
        for name, value in found.items()
    }
    heads: dict[str, Head] = {}
    for name in sorted(found, key=columns.__getitem__):
        classes = texts(field(found[name], "classes", f"heads.{name}."), f"heads.{name}.classes")
        stop = first + len(classes)
        if columns[name] != [first, stop]:
            raise ValueError(f"heads.{name} has columns {columns[name]} for its classes, not {[first, stop]}")
        heads[name] = Head(classes, slice(first, stop))
        first = stop
    return heads


def _columns(head: Mapping[str, Any], name: str) -> list[Any]:
    return items(field(head, "columns", f"heads.{name}."), f"heads.{name}.columns")


def _order(engine: str, value: object, variants: Mapping[str, VariantRecord]) -> tuple[str, ...]:
    names = texts(value, f"engines.{engine}")
    if unknown := [name for name in names if name not in variants]:
        raise ValueError(f"engines.{engine} has {unknown[0]!r}, which is not a variant")
    return names


def _measured_on(value: Mapping[str, Any], above: str) -> MeasuredOn:
    sets = field(value, "instruction_sets", above)
    return MeasuredOn(
        text(field(value, "cpu", above), f"{above}cpu"),
        None if sets is None else texts(sets, f"{above}instruction_sets"),
    )


def _file(raw: Mapping[str, Any], name: str, above: str) -> str:
    return _inside(text(field(raw, name, above), f"{above}{name}"))


def _inside(name: str) -> str:
    """A relative file name; a manifest must not refer to files outside the bundle."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the file name {name!r} points outside the bundle")
    return relative.as_posix()


def _check_files(manifest: BundleManifest) -> None:
    named = {manifest.images, manifest.inputs, *(manifest.photo or ())}
    for variant in manifest.variants.values():
        named |= {variant.file, variant.vectors}
    if unlisted := named - set(manifest.files):
        raise BundleError(
            f"{manifest.path / MANIFEST} has no digest for {', '.join(sorted(unlisted))}",
            hint="copy the bundle again, or export it again",
        )
    for name, expected in manifest.files.items():
        file = manifest.path / name
        if not file.is_file():
            raise BundleError(f"{manifest.path} is incomplete", found=f"no {name}", hint="copy the bundle again")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != expected:
            raise BundleError(
                f"{file} was changed after the bundle was made",
                found=f"sha256 {found[:16]}…",
                allowed=f"sha256 {expected[:16]}…",
                hint="copy the bundle again, or export it again",
            )


def _check_unchanged(folder: Path, raw: Mapping[str, Any]) -> None:
    found, expected = checksum(raw), raw.get("checksum")
    if found != expected:
        raise BundleError(
            f"{folder / MANIFEST} was changed after the bundle was made",
            found=f"checksum {found[:16]}…",
            allowed=f"checksum {str(expected)[:16]}…",
            hint="copy the bundle again, or export it again",
        )


def _check_nothing_added(manifest: BundleManifest) -> None:
    """Raises BundleError for graphs and test vectors that the manifest does not list, since they were not verified."""
    found = [*manifest.path.glob(GRAPHS), *(manifest.path / VECTORS).rglob("*")]
    names = sorted(
        file.relative_to(manifest.path).as_posix() for file in found if file.is_symlink() or not file.is_dir()
    )
    if unnamed := [name for name in names if name not in manifest.files]:
        raise BundleError(
            f"{manifest.path} holds files that its {MANIFEST} does not list",
            found=", ".join(unnamed[:10]) + (f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""),
            allowed=f"{GRAPHS} and files in {VECTORS}/ only if {MANIFEST} lists them; files of other names are ignored",
            hint="move them elsewhere, or copy the bundle again",
        )
