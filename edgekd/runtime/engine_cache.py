"""Engines on disk: one folder per engine, named by a digest of its identity; a stale engine is refused, not run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd import safe_json
from edgekd.errors import BackendError
from edgekd.runtime.gpu import Gpu

ENGINE = "model.engine"
RECORD = "engine.json"
FORMAT = 2
_BUILD_AGAIN = "build it again on this device: edgekd build BUNDLE"


@dataclass(frozen=True)
class Identity:
    """Everything that an engine depends on; engines of equal identity are interchangeable.

    Attributes:
        graph: sha256 of the ONNX file.
        gpu, compute_capability: of the device that built it, e.g. "Orin", "8.7".
        engine, version: the backend's name, and the full version of its package.
        options: of the builder.
    """

    graph: str
    gpu: str
    compute_capability: str
    engine: str
    version: str
    options: Mapping[str, str | int | None]

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Engine:
    """One engine file and its record; `seconds` is the time that building took, `created` is in UTC."""

    path: Path
    identity: Identity
    sha256: str
    size_bytes: int
    seconds: float
    created: str
    cuda_driver: str


def home(cache: Path | None = None) -> Path:
    """The cache's folder: `cache`, or edgekd/engines in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    return user_cache() / "engines" if cache is None else cache


def user_cache() -> Path:
    """edgekd's folder in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekd"


def find(cache: Path | None = None, *, device: Gpu | None = None, graph: str | None = None) -> list[Engine]:
    """The engines in the cache, the most recently requested one first; other folders are skipped.

    Args:
        cache: the cache's folder; None: the default.
        device: only engines built on this kind of GPU.
        graph: only engines built from the ONNX file with this SHA-256.
    """
    found = []
    for file in home(cache).glob(f"[!.]*/{RECORD}"):
        try:
            engine, asked = read(file), file.stat().st_mtime
        except (BackendError, OSError):
            continue  # not an engine, or another process is replacing it
        mine = device is None or _device(engine.identity) == (device.name, device.capability)
        if engine.identity.key == file.parent.name and mine and graph in (None, engine.identity.graph):
            found.append((asked, engine))
    return [engine for _, engine in sorted(found, key=lambda pair: (pair[0], pair[1].created), reverse=True)]


def take(identity: Identity, cache: Path | None = None) -> Engine | None:
    """The engine of this identity, if it is there and undamaged; it becomes the most recently requested one.

    Raises:
        BackendError: the cache cannot be written.
    """
    file = home(cache) / identity.key / RECORD
    try:
        engine = read(file)
        whole = engine.identity == identity and _sha256(engine.path.read_bytes()) == engine.sha256
    except (BackendError, OSError):
        return None
    if not whole:
        return None
    try:
        _touch(file)
    except OSError as error:
        raise _unwritable(home(cache), error) from None
    return engine


def put(identity: Identity, plan: bytes, *, seconds: float, device: Gpu, cache: Path | None = None) -> Engine:
    """Write an engine to the cache with one rename; an engine that another process has written meanwhile is kept.

    Args:
        identity: of the engine.
        plan: the serialized engine.
        seconds: the time that building took.
        device: that it was built on.
        cache: the cache's folder; None: the default.

    Raises:
        BackendError: the disk is full, or the folder cannot be written.
    """
    place = home(cache) / identity.key
    record = {
        "format": FORMAT,
        **asdict(identity),
        "cuda_driver": device.driver,
        "sha256": _sha256(plan),
        "size_bytes": len(plan),
        "seconds": round(seconds, 3),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    try:
        _rename_into(place, plan, record)
    except OSError as error:
        raise _unwritable(place.parent, error) from None
    return read(place / RECORD)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file with one rename. Raises BackendError: the disk is full, or the folder cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.replace(temporary, file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(file.parent, error) from None


def timing_file(device: Gpu, engine: str, version: str, cache: Path | None = None) -> Path:
    """The file with kernel timings for this kind of device and this version of an engine."""
    digest = _sha256(json.dumps([device.name, device.capability, engine, version]).encode())
    return home(cache) / f"timing-{digest[:16]}.cache"


def read(file: Path) -> Engine:
    """Read an engine.json.

    Raises:
        BackendError: it is missing or not valid.
    """
    try:
        raw: dict[str, Any] = safe_json.loads(file.read_bytes())
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']}, not {FORMAT}")
        parts = {name: str(raw[name]) for name in ("graph", "gpu", "compute_capability", "engine", "version")}
        return Engine(
            path=file.with_name(ENGINE),
            identity=Identity(**parts, options=dict(raw["options"])),
            sha256=str(raw["sha256"]),
            size_bytes=int(raw["size_bytes"]),
            seconds=float(raw["seconds"]),
            created=str(raw["created"]),
            cuda_driver=str(raw["cuda_driver"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"{file} is not a valid engine record", found=f"{type(error).__name__}: {error}", hint=_BUILD_AGAIN
        ) from None


def check(path: Path, plan: bytes, *, device: Gpu, engine: str, version: str, graph: str | None = None) -> None:
    """Compare an engine with the engine.json beside it, and that with this machine. Without engine.json, do nothing.

    Args:
        path: the engine's file.
        plan: the file's content.
        device: this machine's GPU.
        engine, version: the name and version of the backend that will run it.
        graph: SHA-256 of the ONNX file that it should have been built from; None: not known.

    Raises:
        BackendError: it was changed after it was built, or belongs to another engine, version, GPU or graph.
    """
    file = path.with_name(RECORD)
    if not file.exists():
        return
    record = read(file)
    identity = record.identity
    here = (device.name, device.capability)
    for what, found, allowed in (
        ("was changed after it was built", f"sha256 {_sha256(plan)[:16]}…", f"sha256 {record.sha256[:16]}…"),
        ("was built by another version", f"{identity.engine} {identity.version}", f"{engine} {version}"),
        ("was built for another GPU", _named(_device(identity)), _named(here)),
        ("was built from another graph", f"sha256 {identity.graph[:16]}…", f"sha256 {(graph or identity.graph)[:16]}…"),
    ):
        if found != allowed:
            raise BackendError(f"{path} {what}", found=found, allowed=allowed, hint=_BUILD_AGAIN)


def _rename_into(place: Path, plan: bytes, record: Mapping[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    try:
        (temporary / ENGINE).write_bytes(plan)
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        _touch(temporary / RECORD)
        if place.exists() and take(read(temporary / RECORD).identity, place.parent) is None:
            shutil.rmtree(place, ignore_errors=True)  # damaged
        try:
            temporary.rename(place)
        except OSError:
            if not (place / RECORD).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _touch(file: Path) -> None:
    """Mark as requested now, with a finer clock than the file system's own timestamps."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def _device(identity: Identity) -> tuple[str, str]:
    return identity.gpu, identity.compute_capability


def _named(device: tuple[str, str]) -> str:
    return f"{device[0]}, compute capability {device[1]}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unwritable(folder: Path, error: OSError) -> BackendError:
    return BackendError(
        f"the engine cache {folder} cannot be written",
        found=error.strerror or str(error),
        hint="free space or grant write permission there, or set XDG_CACHE_HOME to another folder",
    )
