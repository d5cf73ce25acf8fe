"""Reading a bundle: its manifest, checked field by field and file by file, with nothing but the standard library.

bundle.json describes itself (its checksum), every file that it names, the graphs `model.*.onnx` and all of `vectors/`.
In those two places no file lies that it does not name. What else a user keeps in the folder is not looked at: an
engine, a note.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgekd import plugins
from edgekd.errors import BundleError
from edgekd.runtime.preprocess import Preprocessing

MANIFEST = "bundle.json"
FORMAT = 2
GRAPHS = "model.*.onnx"
VECTORS = "vectors"


@dataclass(frozen=True)
class VariantRecord:
    """One graph of the bundle.

    Attributes:
        file: its name, relative to the bundle.
        precision: "fp32", "fp16", …
        activations: the type of the activations in the graph, which decides what engines run it: see Backend.
        metrics: accuracy and the like, measured on this file.
        vectors: the file with the expected outputs, relative to the bundle.
        tolerance: how far an engine's outputs may be from them, relative to the largest expected one.
    """

    file: str
    precision: str
    activations: str
    metrics: Mapping[str, Any]
    vectors: str
    tolerance: float


@dataclass(frozen=True)
class Head:
    """A further question that the network answers: which of its outputs are the answer, and what they mean."""

    classes: tuple[str, ...]
    columns: slice


@dataclass(frozen=True)
class BundleManifest:
    """The content of bundle.json.

    Attributes:
        classes: of the first outputs.
        heads: further ones, by name.
        files: the sha256 of each file, by its name relative to the bundle.
        engines: for "<engine>" or "<engine>-<machine>", the variants in the order in which it should take them.
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
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)

    def preferred(self, engine: str, machine: str | None = None) -> tuple[str, ...]:
        """The variants that an engine should take, best first: the bundle's order, else the backend's usual one.

        Args:
            engine: a backend's name.
            machine: as platform.machine() spells it; None: this one.

        Raises:
            UnknownNameError: the bundle has no order for this engine and there is no such backend.
        """
        here = machine or platform.machine()
        for name in (f"{engine}-{here}", engine):
            if name in self.engines:
                return self.engines[name]
        usual = plugins.load("backend", engine).activations(here)
        return tuple(name for each in usual for name, record in self.variants.items() if record.activations == each)

    def graph(self, variant: str) -> Path:
        return self.path / self.variants[variant].file

    def graph_sha256(self, variant: str) -> str:
        return self.files[self.variants[variant].file]


def read(path: Path | str) -> BundleManifest:
    """Read a bundle's manifest, and check it against its checksum and every file against its digest.

    Raises:
        BundleError: no bundle there, a manifest that was changed or cannot be understood, a missing or changed file, or
            a graph or a vector that the manifest does not name.
    """
    folder = Path(path)
    raw = _raw_manifest(folder)
    if raw.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is a bundle of another format",
            found=raw.get("format"),
            allowed=FORMAT,
            hint="load it with the edgekd version that wrote it, or export it again",
        )
    _check_untouched(folder, raw)
    try:
        manifest = _parse(folder, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{folder / MANIFEST} cannot be understood",
            found=f"{type(error).__name__}: {error}",
            hint="export the bundle again",
        ) from None
    _check_files(manifest)
    _check_no_more(manifest)
    return manifest


def checksum(manifest: Mapping[str, Any]) -> str:
    """The sha256 of everything in a manifest but its `checksum`, as JSON with sorted keys and no spaces."""
    content = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _raw_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if folder.is_file():
        raise BundleError(
            f"{folder} is no bundle",
            found="one file",
            allowed=f"a folder with a {MANIFEST}",
            hint=f"name the bundle's folder; one file alone can be measured: edgekd bench {folder}",
        )
    if not file.is_file():
        raise BundleError(
            f"{folder} is no bundle", found=f"no {MANIFEST} in it", hint="name the folder that `edgekd run` printed"
        )
    try:
        raw = json.loads(file.read_text())
    except ValueError as error:
        raise BundleError(f"{file} is not JSON", found=str(error), hint="copy the bundle again") from None
    if not isinstance(raw, dict):
        raise BundleError(f"{file} is not a JSON object", found=type(raw).__name__)
    return raw


def _parse(folder: Path, raw: dict[str, Any]) -> BundleManifest:
    variants = {
        str(name): VariantRecord(
            file=_inside(value["file"]),
            precision=str(value["precision"]),
            activations=str(value["activations"]),
            metrics=dict(value["metrics"]),
            vectors=_inside(value["vectors"]),
            tolerance=float(value["tolerance"]),
        )
        for name, value in raw["variants"].items()
    }
    return BundleManifest(
        path=folder,
        name=str(raw["name"]),
        classes=tuple(map(str, raw["classes"])),
        preprocessing=Preprocessing.from_json(raw["preprocessing"]),
        variants=variants,
        images=_inside(raw["vectors"]["images"]),
        inputs=_inside(raw["vectors"]["inputs"]),
        files={_inside(name): str(record["sha256"]) for name, record in raw["files"].items()},
        provenance=dict(raw["provenance"]),
        engines={str(name): _order(name, order, variants) for name, order in raw.get("engines", {}).items()},
        heads=_heads(raw.get("heads", {}), len(raw["classes"])),
    )


def _heads(raw: dict[str, Any], first: int) -> dict[str, Head]:
    """Each begins where the one before it ends, the first of them at `first`."""
    heads: dict[str, Head] = {}
    for name, value in sorted(raw.items(), key=lambda item: list(item[1]["columns"])):
        classes = tuple(map(str, value["classes"]))
        stop = first + len(classes)
        if value["columns"] != [first, stop]:
            raise ValueError(f"heads.{name} has columns {value['columns']} for its classes, not {[first, stop]}")
        heads[str(name)] = Head(classes, slice(first, stop))
        first = stop
    return heads


def _order(engine: str, names: Any, variants: Mapping[str, VariantRecord]) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise TypeError(f"engines.{engine} is no list")
    if unknown := [name for name in names if name not in variants]:
        raise ValueError(f"engines.{engine} names {unknown[0]!r}, which is no variant")
    return tuple(names)


def _inside(name: str) -> str:
    """A manifest from anywhere must not make us read outside its folder."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the file name {name!r} points outside the bundle")
    return relative.as_posix()


def _check_files(manifest: BundleManifest) -> None:
    named = {manifest.images, manifest.inputs}
    for variant in manifest.variants.values():
        named |= {variant.file, variant.vectors}
    if unlisted := named - set(manifest.files):
        raise BundleError(f"{manifest.path / MANIFEST} has no digest for {', '.join(sorted(unlisted))}")
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


def _check_untouched(folder: Path, raw: Mapping[str, Any]) -> None:
    found, expected = checksum(raw), raw.get("checksum")
    if found != expected:
        raise BundleError(
            f"{folder / MANIFEST} was changed after the bundle was made",
            found=f"checksum {found[:16]}…",
            allowed=f"checksum {str(expected)[:16]}…",
            hint="copy the bundle again, or export it again",
        )


def _check_no_more(manifest: BundleManifest) -> None:
    """A graph or a vector beside those that were proven is no part of this bundle, whoever would pick it up."""
    found = [*manifest.path.glob(GRAPHS), *(manifest.path / VECTORS).rglob("*")]
    names = sorted(
        file.relative_to(manifest.path).as_posix() for file in found if file.is_symlink() or not file.is_dir()
    )
    if unnamed := [name for name in names if name not in manifest.files]:
        raise BundleError(
            f"{manifest.path} holds files that its {MANIFEST} does not name",
            found=", ".join(unnamed[:10]) + (f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""),
            allowed=f"{GRAPHS} and files in {VECTORS}/ only as {MANIFEST} names them; other names are free",
            hint="move them elsewhere, or copy the bundle again",
        )
