"""Reading a bundle: its manifest, checked field by field and file by file, with nothing but the standard library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekd.errors import BundleError
from edgekd.runtime.preprocess import Preprocessing

MANIFEST = "bundle.json"
FORMAT = 1


@dataclass(frozen=True)
class VariantRecord:
    """One graph of the bundle.

    Attributes:
        file: its name, relative to the bundle.
        precision: "fp32", "fp16", …
        metrics: accuracy and the like, measured on this file.
        vectors: the file with the expected outputs, relative to the bundle.
        tolerance: how far an engine's outputs may be from them, relative to the largest expected one.
    """

    file: str
    precision: str
    metrics: Mapping[str, Any]
    vectors: str
    tolerance: float


@dataclass(frozen=True)
class BundleManifest:
    path: Path
    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    variants: Mapping[str, VariantRecord]
    images: str
    inputs: str
    files: Mapping[str, str]
    provenance: Mapping[str, Any]


def read(path: Path | str) -> BundleManifest:
    """Read a bundle's manifest and check every file against its digest.

    Raises:
        BundleError: no bundle there, a manifest that cannot be understood, a missing or changed file.
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
    try:
        manifest = _parse(folder, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{folder / MANIFEST} cannot be understood",
            found=f"{type(error).__name__}: {error}",
            hint="export the bundle again",
        ) from None
    _check_files(manifest)
    return manifest


def _raw_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
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
    )


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
