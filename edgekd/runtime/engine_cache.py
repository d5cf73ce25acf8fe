"""Engines on disk: one folder per engine, named by everything that decides it; a stale one is refused, not run."""

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

from edgekd.errors import BackendError
from edgekd.runtime.gpu import Gpu

ENGINE = "model.engine"
RECORD = "engine.json"
FORMAT = 2
_AGAIN = "build it again on this device: edgekd build BUNDLE"


@dataclass(frozen=True)
class Identity:
    """Everything that decides an engine; the same identity is the same engine.

    Attributes:
        graph: sha256 of the ONNX file.
        gpu, compute_capability: of the device that built it, e.g. "Orin", "8.7".
        engine, version: the backend that built it, by name, and the version of its package in full.
        options: what the builder was asked for.
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
    """One engine file and its record; `seconds` is what building it took, `created` is in UTC."""

    path: Path
    identity: Identity
    sha256: str
    size_bytes: int
    seconds: float
    created: str
    cuda_driver: str


def home(cache: Path | None = None) -> Path:
    """The cache's folder: `cache`, or edgekd/engines where the user's caches lie."""
    if cache is not None:
        return cache
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekd" / "engines"


def find(cache: Path | None = None, *, device: Gpu | None = None, graph: str | None = None) -> list[Engine]:
    """The engines in the cache, the one that was asked for last first; folders that are no engine's are left out.

    Args:
        device: only those built on such a GPU.
        graph: only those built from the ONNX file of this sha256.
    """
    found = []
    for file in home(cache).glob(f"[!.]*/{RECORD}"):
        try:
            engine, asked = read(file), file.stat().st_mtime
        except (BackendError, OSError):
            continue  # not ours, or another process is just replacing it; building it again puts it right
        mine = device is None or _device(engine.identity) == (device.name, device.capability)
        if engine.identity.key == file.parent.name and mine and graph in (None, engine.identity.graph):
            found.append((asked, engine))
    return [engine for _, engine in sorted(found, key=lambda pair: (pair[0], pair[1].created), reverse=True)]


def take(identity: Identity, cache: Path | None = None) -> Engine | None:
    """The engine of this identity if it is there and whole, now the one that was asked for last.

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
    """Write an engine beside its place and rename it there; where another process was faster, its engine stays.

    Raises:
        BackendError: no room or no rights.
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
    """Raises BackendError: no room or no rights."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=file.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.replace(beside, file)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(file.parent, error) from None


def timing_file(device: Gpu, engine: str, version: str, cache: Path | None = None) -> Path:
    """Where the timings of this kind of device and this version of an engine are kept."""
    digest = _sha256(json.dumps([device.name, device.capability, engine, version]).encode())
    return home(cache) / f"timing-{digest[:16]}.cache"


def read(file: Path) -> Engine:
    """Read an engine.json.

    Raises:
        BackendError: it is missing or cannot be understood.
    """
    try:
        raw: dict[str, Any] = json.loads(file.read_text())
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
            f"{file} is no engine's record", found=f"{type(error).__name__}: {error}", hint=_AGAIN
        ) from None


def check(path: Path, plan: bytes, *, device: Gpu, engine: str, version: str, graph: str | None = None) -> None:
    """Hold an engine against the engine.json beside it, and that against this machine; without one nothing is known.

    Args:
        plan: the file's content.
        engine, version: the backend that is to run it, by name, and its version.
        graph: sha256 of the ONNX file that it should have been built from, where that is known.

    Raises:
        BackendError: changed after it was built, or of another engine, version, GPU or graph.
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
            raise BackendError(f"{path} {what}", found=found, allowed=allowed, hint=_AGAIN)


def _rename_into(place: Path, plan: bytes, record: Mapping[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    try:
        (beside / ENGINE).write_bytes(plan)
        (beside / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        _touch(beside / RECORD)
        if place.exists() and take(read(beside / RECORD).identity, place.parent) is None:
            shutil.rmtree(place, ignore_errors=True)  # damaged
        try:
            beside.rename(place)
        except OSError:
            if not (place / RECORD).is_file():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _touch(file: Path) -> None:
    """Asked for now: by a finer clock than the file system's own, which ticks a few times per hundredth of a second."""
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
        hint="make room or give rights there, or set XDG_CACHE_HOME to another place",
    )
