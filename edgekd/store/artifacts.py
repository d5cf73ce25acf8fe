"""Artifacts: folders of files with a manifest that records what they are, which stage made them, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Generic, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import Self, TypeVar

from edgekd import safe_json
from edgekd.errors import ArtifactError
from edgekd.store.records import Count, Frozen, Metrics, Span

MANIFEST = "manifest.json"
FORMAT = 2
_RECORDED_PACKAGES = ("edgekd", "torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "numpy")

Json = dict[str, Any]


class FileRecord(Frozen):
    sha256: str
    size_bytes: Count


class StageRecord(Frozen):
    """The stage that made an artifact: enough to decide whether it can be reused, and to make it again."""

    name: str
    key: str
    version: int
    settings: Json
    inputs: dict[str, str]
    seconds: Span


class Manifest(Frozen):
    """What manifest.json holds.

    Attributes:
        digest: over the content: kind, details and files. Later stages' keys depend on it, so it covers neither
            times nor versions.
        details: what describes the artifact; read it as `Artifact.details`, where it is typed.
        metrics: what was measured while the artifact was made.
        checksum: over everything else in the manifest, so that every change of it is detected.
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
        """A copy with the stage that made the artifact, and the checksum for it."""
        return self.model_copy(update={"stage": stage}).checksummed()

    def checksummed(self) -> Manifest:
        return self.model_copy(update={"checksum": _checksum(self.model_dump(mode="json"))})


class Fields(dict[str, Any]):
    """A JSON object from a file, in which a missing field is an error that names the file and the field.

    The error is a KeyError too, so that a reader may have another answer for a missing field.
    """

    _file: Path | None = None
    _above = ""

    @classmethod
    def of(cls, values: Json, file: Path, above: str = "") -> Fields:
        """The object at the place `above` in a file. Copies that are made item by item do not know their file."""
        fields = cls({name: _within(value, file, f"{above}{name}") for name, value in values.items()})
        fields._file, fields._above = file, above
        return fields

    def __missing__(self, name: str) -> NoReturn:
        if self._file is None:
            raise KeyError(name)
        raise _MissingField(
            f"{self._file} has no field {self._above}{name}",
            found=", ".join(self) or "no field",
            hint=f"{_again(self._file.parent)}: it was changed, or another version of edgekd wrote it",
        )


def _within(value: Any, file: Path, place: str) -> Any:
    if isinstance(value, dict):
        return Fields.of(value, file, f"{place}.")
    if isinstance(value, list):
        return [_within(each, file, f"{place}[{index}]") for index, each in enumerate(value)]
    return value


class _MissingField(ArtifactError, KeyError):
    pass


class Details(BaseModel):
    """What a manifest records about an artifact: one frozen model per kind, checked when an artifact is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# A plain `Artifact` may be of any kind.
D = TypeVar("D", bound=Details, default=Any)
T = TypeVar("T")


class Artifact(Generic[D]):
    """A sealed folder of files. A subclass sets its kind and its details' model: `class Pool(Artifact[PoolDetails])`.

    A subclass whose metrics are read by name sets their model, too: `measured = PoolMetrics`.

    Attributes:
        metrics: what was measured while it was made; reading one that is not there is an ArtifactError.

    Raises:
        ArtifactError: the manifest's details or metrics do not fit their model.
    """

    kind: ClassVar[str]
    measured: ClassVar[type[Metrics]] = Metrics
    _details_model: ClassVar[type[Details]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        models = [model for base in getattr(cls, "__orig_bases__", ()) for model in get_args(base)]
        if models and isinstance(models[0], type):
            cls._details_model = models[0]

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.details: D = self._checked("details", self._details_model, manifest.details)
        self._checked("metrics", self.measured, manifest.metrics)
        # Read by name, and passed on as they are.
        self.metrics: Json = Fields.of(manifest.metrics, path / MANIFEST, "metrics.")

    def _checked(self, part: str, model: type[BaseModel], values: Json) -> Any:
        try:
            # As JSON: a strict model accepts a list for a tuple only there.
            return model.model_validate_json(canonical(values))
        except ValidationError as error:
            raise ArtifactError(
                f"the {part} in {self.path / MANIFEST} do not fit an artifact of the kind {self.kind}",
                found=f"{part}.{first_problem(error)}",
                hint=f"delete {self.path} and run again: another version of edgekd may have written it",
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, digest={self.digest[:12]})"

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.manifest.files.values())

    @classmethod
    def seal(cls, path: Path, *, details: D, metrics: Json | None = None) -> Self:
        """Digest every file in `path` and write the manifest, which makes the folder an artifact.

        Args:
            path: the folder, complete except for its manifest.
            details: what describes the artifact.
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
        """Read an artifact, and check its manifest and all its files.

        Args:
            path: its folder.

        Raises:
            ArtifactError: no manifest, another kind, details that do not fit it, a changed manifest, a missing or
                changed file, or a file that the manifest does not list.
        """
        manifest = read_manifest(path)
        if manifest.kind != cls.kind:
            raise ArtifactError(f"{path} is another kind of artifact", found=manifest.kind, allowed=cls.kind)
        if unnamed := [name for name in _files_in(path) if name not in manifest.files]:
            raise ArtifactError(
                f"{path} holds files that its manifest does not list",
                found=", ".join(unnamed[:10]) + (f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""),
                allowed=f"{MANIFEST} and {', '.join(manifest.files) or 'nothing else'}",
                hint=f"move them elsewhere, or delete {path} to make it again",
            )
        for name, record in manifest.files.items():
            check_file(path / name, record.sha256, owner=str(path))
            _check_unchanged(path / MANIFEST, f"size of {name}", (path / name).stat().st_size, record.size_bytes)
        return cls(path, manifest)


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces. Raises TypeError for a value that JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """The SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def check_file(path: Path, expected: str, *, owner: str) -> None:
    """Raises ArtifactError where a file is missing or its digest is not the one in the manifest."""
    hint = _again(owner)
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
        ArtifactError: no manifest, one that is not valid, or one that was changed after it was written.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(
            f"{path} is not an artifact",
            found=f"no {MANIFEST} in it",
            hint="delete it to make it again, or check the path: an artifact is one folder in the stages/ of a run",
        )
    raw = read_json(file)
    if raw.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} was written in another format",
            found=f"format {raw.get('format')}",
            allowed=f"format {FORMAT}",
            hint="delete it and run again",
        )
    # Over the JSON as it was read, so that the checksum covers everything in the file.
    _check_unchanged(file, "checksum", _checksum(raw), raw.get("checksum"))
    try:
        manifest = Manifest.model_validate(raw, strict=True)
    except ValidationError as error:
        raise ArtifactError(
            f"{file} is not a valid manifest", found=first_problem(error), hint=_again(file.parent)
        ) from None
    files = {name: record.sha256 for name, record in manifest.files.items()}
    _check_unchanged(file, "digest", _content_digest(manifest.kind, manifest.details, files), manifest.digest)
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Raises OSError where the disk is full."""
    write_json(path / MANIFEST, manifest.model_dump(mode="json"))


def _again(folder: object) -> str:
    """What to do about a damaged artifact: what a run made can be made again, what somebody brought cannot."""
    return f"restore it, or, if a run of yours made it, delete {folder} to make it again"


def _made_by(file: Path) -> str:
    """As _again(); a file outside an artifact is made again by the run itself, which keeps its stages."""
    if (file.parent / MANIFEST).exists():
        return _again(file.parent)
    return "restore it, or, if it is a run's, run the recipe again, which reuses finished stages and writes it anew"


def _check_unchanged(file: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ArtifactError(
            f"{file} was changed after it was written",
            found=f"{what} {str(found)[:16]}…",
            allowed=f"{what} {str(expected)[:16]}…",
            hint=_again(file.parent),
        )


def _checksum(manifest: Json) -> str:
    return digest({name: value for name, value in manifest.items() if name != "checksum"})


def _content_digest(kind: str, details: Json, files: Mapping[str, str]) -> str:
    return digest({"kind": kind, "details": details, "files": dict(files)})


def _files_in(folder: Path) -> list[str]:
    """Every file in a folder except the manifest, by its relative path; symbolic links count as files."""
    files = (each for each in sorted(folder.rglob("*")) if each.is_symlink() or not each.is_dir())
    return [each.relative_to(folder).as_posix() for each in files if each != folder / MANIFEST]


def read_json(path: Path) -> Json:
    """A JSON object from a file, of which a missing field is an ArtifactError.

    Raises:
        ArtifactError: the file cannot be read or holds something else.
    """
    try:
        value = safe_json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist", hint="check the path; `edgekd run` makes such a file") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON", found=str(error), hint=_made_by(path)) from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a JSON object", found=type(value).__name__, hint=_made_by(path))
    return Fields.of(value, path)


def read_record(path: Path, model: type[BaseModel]) -> Json:
    """A JSON object from a file, as read_json(), that fits a model.

    Raises:
        ArtifactError: the file cannot be read, or a field is missing, unknown, or of another type.
    """
    value = read_json(path)
    _fitting(value, path, model)
    return value


def read_as(path: Path, kind: type[T]) -> T:
    """A dataclass or a model from a JSON object in a file; keys of a dataclass that are unknown are left out.

    Raises:
        ArtifactError: as read_record().
    """
    return _fitting(read_json(path), path, kind)


def _fitting(value: Json, path: Path, kind: type[T]) -> T:
    try:
        # As JSON: a strict model accepts a list for a tuple only there.
        return TypeAdapter(kind).validate_json(canonical(value), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"{path} is not valid", found=first_problem(error), hint=_made_by(path)) from None


def write_json(path: Path, value: object) -> None:
    """Write a temporary file and rename it to `path`, so that no reader sees half a file. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as stream:
        json.dump(value, stream, indent=2, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that affect results."""
    installed = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def numbers(values: Mapping[str, float], digits: int = 6) -> dict[str, float]:
    """Values rounded for a manifest, so that floating-point noise does not make two equal runs look different."""
    return {name: round(float(value), digits) for name, value in values.items()}


def first_problem(error: ValidationError) -> str:
    """The first field that does not fit a model, and why."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
