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
from typing import Any, ClassVar, Generic, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self, TypeVar

from edgekd.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT = 2
_RECORDED_PACKAGES = ("edgekd", "torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "numpy")

Json = dict[str, Any]


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
    """What manifest.json holds.

    Attributes:
        digest: over the content: kind, details and files. Keys of later stages are made of it, so that neither times
            nor versions are part of it.
        details: what the artifact *is*; read it as `Artifact.details`, where it has a type.
        metrics: what was measured on the way.
        checksum: over everything else in the manifest, so that no change of it passes unnoticed.
    """

    format: int
    kind: str
    digest: str
    details: Json
    metrics: Json
    files: dict[str, FileRecord]
    versions: dict[str, str]
    created: str
    stage: StageRecord | None = None
    checksum: str = ""

    def made_by(self, stage: StageRecord) -> Manifest:
        """The same with the stage that made the artifact, and the checksum that this gives."""
        return self.model_copy(update={"stage": stage}).checksummed()

    def checksummed(self) -> Manifest:
        return self.model_copy(update={"checksum": _checksum(self.model_dump(mode="json"))})


class Details(BaseModel):
    """What an artifact is, as its manifest has it: one frozen model per kind, checked when an artifact is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# A plain `Artifact` is one of any kind.
D = TypeVar("D", bound=Details, default=Any)


class Artifact(Generic[D]):
    """A sealed folder of files. A subclass names its kind and its details' model: `class Pool(Artifact[PoolDetails])`.

    Raises:
        ArtifactError: the manifest's details do not fit the model.
    """

    kind: ClassVar[str]
    _details_model: ClassVar[type[Details]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        models = [model for base in getattr(cls, "__orig_bases__", ()) for model in get_args(base)]
        if models and isinstance(models[0], type):
            cls._details_model = models[0]

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.details: D = self._read_details()

    def _read_details(self) -> D:
        try:
            # As JSON, which has no tuples: a strict model refuses a list for one elsewhere.
            return self._details_model.model_validate_json(canonical(self.manifest.details))  # type: ignore[return-value]
        except ValidationError as error:
            raise ArtifactError(
                f"the details in {self.path / MANIFEST} do not fit an artifact of the kind {self.kind}",
                found=f"details.{first_problem(error)}",
                hint=f"delete {self.path} and run again: another version of edgekd may have written it",
            ) from None

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
    def seal(cls, path: Path, *, details: D, metrics: Json | None = None) -> Self:
        """Digest every file in `path` and write the manifest; the folder is an artifact from then on.

        Args:
            path: the folder, complete but for its manifest.
            details: what the artifact is.
            metrics: what was measured while it was made.

        Returns:
            The artifact, its details read back from the manifest.

        Raises:
            ArtifactError: details that do not fit their own model.
            OSError: no room on the disk.
        """
        files = {
            name: FileRecord(sha256=file_digest(path / name), size_bytes=(path / name).stat().st_size)
            for name in _files_in(path)
            if (path / name).is_file()
        }
        described = details.model_dump(mode="json")
        manifest = Manifest(
            format=FORMAT,
            kind=cls.kind,
            digest=_content_digest(cls.kind, described, {name: record.sha256 for name, record in files.items()}),
            details=described,
            metrics=metrics or {},
            files=files,
            versions=versions(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ).checksummed()
        write_manifest(path, manifest)
        return cls(path, manifest)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an artifact, and check it whole.

        Args:
            path: its folder.

        Raises:
            ArtifactError: no manifest, another kind, details that do not fit it, a manifest that was changed, a missing
                or a changed file, or a file that the manifest does not name.
        """
        manifest = read_manifest(path)
        if manifest.kind != cls.kind:
            raise ArtifactError(f"{path} is another kind of artifact", found=manifest.kind, allowed=cls.kind)
        if unnamed := [name for name in _files_in(path) if name not in manifest.files]:
            raise ArtifactError(
                f"{path} holds files that its manifest does not name",
                found=", ".join(unnamed[:10]) + (f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""),
                allowed=f"{MANIFEST} and {', '.join(manifest.files) or 'nothing else'}",
                hint=f"move them elsewhere, or delete {path} to have it made again",
            )
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
    """The manifest of the artifact in a folder, as it was written.

    Raises:
        ArtifactError: there is none, it cannot be understood, or it was changed after it was written.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is no artifact", found=f"no {MANIFEST} in it")
    raw = read_json(file)
    if raw.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} was written in another format",
            found=f"format {raw.get('format')}",
            allowed=f"format {FORMAT}",
            hint="delete it and run again",
        )
    # Over the JSON as it was read, so that nothing in the file is left out.
    _check_untouched(file, "checksum", _checksum(raw), raw.get("checksum"))
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(f"{file} is not a valid manifest", found=first_problem(error)) from None
    files = {name: record.sha256 for name, record in manifest.files.items()}
    _check_untouched(file, "digest", _content_digest(manifest.kind, manifest.details, files), manifest.digest)
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Raises OSError where the disk is full."""
    write_json(path / MANIFEST, manifest.model_dump(mode="json"))


def _check_untouched(file: Path, what: str, found: str, expected: object) -> None:
    if found != expected:
        raise ArtifactError(
            f"{file} was changed after it was written",
            found=f"{what} {found[:16]}…",
            allowed=f"{what} {str(expected)[:16]}…",
            hint=f"restore it, or delete {file.parent} to have it made again",
        )


def _checksum(manifest: Json) -> str:
    return digest({name: value for name, value in manifest.items() if name != "checksum"})


def _content_digest(kind: str, details: Json, files: Mapping[str, str]) -> str:
    return digest({"kind": kind, "details": details, "files": dict(files)})


def _files_in(folder: Path) -> list[str]:
    """Everything in a folder but folders and the manifest, by its path in it; links count, wherever they lead."""
    found = (each for each in sorted(folder.rglob("*")) if each.is_symlink() or not each.is_dir())
    return [each.relative_to(folder).as_posix() for each in found if each != folder / MANIFEST]


def read_json(path: Path) -> Json:
    """Raises ArtifactError where the file is missing or holds no JSON object."""
    try:
        value = json.loads(path.read_text(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON", found=str(error)) from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a JSON object", found=type(value).__name__)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


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


def first_problem(error: ValidationError) -> str:
    """Where a model does not fit, and why."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
