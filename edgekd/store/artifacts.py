"""Artifacts: folders of files with a manifest that says what they are, what made them, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT = 1
_RECORDED_PACKAGES = ("edgekd", "torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "numpy")

Json = dict[str, Any]
Self = TypeVar("Self", bound="Artifact")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    sha256: str
    size_bytes: int


class StageRecord(_Frozen):
    """What made an artifact: enough to decide whether it can be reused, and to make it again."""

    name: str
    key: str
    version: int
    settings: Json
    inputs: dict[str, str]
    seconds: float


class Manifest(_Frozen):
    """`details` is what the artifact *is* (part of its digest); `metrics` is what was measured on the way."""

    format: int
    kind: str
    digest: str
    details: Json
    metrics: Json
    files: dict[str, FileRecord]
    versions: dict[str, str]
    created: str
    stage: StageRecord | None = None


class Artifact:
    """A sealed folder. Subclasses name their kind and give typed access to `details`."""

    kind: ClassVar[str]

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, digest={self.digest[:12]})"

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def metrics(self) -> Json:
        return self.manifest.metrics

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.manifest.files.values())

    @classmethod
    def seal(cls: type[Self], path: Path, *, details: Json, metrics: Json | None = None) -> Self:
        """Digest every file in `path` and write the manifest; the folder is an artifact from then on."""
        files = {
            file.relative_to(path).as_posix(): FileRecord(sha256=file_digest(file), size_bytes=file.stat().st_size)
            for file in sorted(path.rglob("*"))
            if file.is_file() and file != path / MANIFEST
        }
        content = {"kind": cls.kind, "details": details, "files": {n: r.sha256 for n, r in files.items()}}
        manifest = Manifest(
            format=FORMAT,
            kind=cls.kind,
            digest=digest(content),
            details=details,
            metrics=metrics or {},
            files=files,
            versions=versions(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        write_json(path / MANIFEST, manifest.model_dump(mode="json"))
        return cls(path, manifest)

    @classmethod
    def load(cls: type[Self], path: Path) -> Self:
        """Read an artifact and check every file against its digest.

        Raises:
            ArtifactError: no manifest, another kind, a missing file or a changed one.
        """
        manifest = read_manifest(path)
        if manifest.kind != cls.kind:
            raise ArtifactError(f"{path} is not a {cls.kind}", found=f"a {manifest.kind}")
        for name, record in manifest.files.items():
            check_file(path / name, record.sha256, owner=str(path))
        return cls(path, manifest)


def canonical(value: object) -> str:
    """Canonical JSON; a value JSON cannot hold is a TypeError rather than silently its repr."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def check_file(path: Path, expected: str, *, owner: str) -> None:
    """Raises ArtifactError where a file is missing or does not have the digest its manifest names."""
    hint = f"restore it, or delete {owner} to have it made again"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", hint=hint)
    if (found := file_digest(path)) != expected:
        raise ArtifactError(
            f"{path} was changed after it was written",
            found=f"sha256 {found[:16]}…",
            allowed=f"sha256 {expected[:16]}…",
            hint=hint,
        )


def read_manifest(path: Path) -> Manifest:
    """Raises ArtifactError where there is no manifest or it cannot be understood."""
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is no artifact", found=f"no {MANIFEST} in it")
    try:
        manifest = Manifest.model_validate(read_json(file))
    except ValidationError as error:
        raise ArtifactError(f"{file} is not a valid manifest", found=_first_problem(error)) from None
    if manifest.format != FORMAT:
        raise ArtifactError(
            f"{path} was written in format {manifest.format}",
            allowed=f"format {FORMAT}",
            hint="delete it and run again",
        )
    return manifest


def read_json(path: Path) -> Json:
    """Raises ArtifactError where the file is missing or holds no JSON object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON", found=str(error)) from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a JSON object", found=type(value).__name__)
    return value


def write_json(path: Path, value: object) -> None:
    """Write beside the place, then rename into it, so that no reader ever sees half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w") as stream:
        json.dump(value, stream, indent=2, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def versions() -> dict[str, str]:
    """The versions of everything that decides a result, as far as installed."""
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def numbers(values: Mapping[str, float], digits: int = 6) -> dict[str, float]:
    """Rounded for a manifest: more digits than anyone reads make two equal runs look different."""
    return {name: round(float(value), digits) for name, value in values.items()}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
