"""Remembers, once per machine, how far a variant's outputs are from the bundle's test vectors in an engine here.

One small file per variant, in edgekd/verified in the user's cache folder. What cannot be read or written there costs
another verification, and is no error.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd import safe_json
from edgekd.errors import BackendError
from edgekd.runtime import processor
from edgekd.runtime.backends import Backend
from edgekd.runtime.bundle import BundleManifest
from edgekd.runtime.engine_cache import user_cache, write_atomically

FORMAT = 1


@dataclass(frozen=True)
class Subject:
    """Everything that the outputs depend on.

    Attributes:
        bundle: the manifest's checksum, which stands for all files of the bundle.
        file: what the engine opens: empty for the bundle's own graph, else path, size and time of a built engine.
        engine, version: of the backend.
        cpu, instruction_sets: see edgekd.runtime.processor; empty where the system does not list them.
    """

    bundle: str
    variant: str
    file: str
    engine: str
    version: str
    cpu: str
    instruction_sets: str

    @classmethod
    def here(cls, manifest: BundleManifest, variant: str, file: Path, backend: Backend) -> Subject:
        """A variant in an engine on this machine."""
        return cls(
            bundle=manifest.checksum,
            variant=variant,
            file="" if file == manifest.graph(variant) else _identity(file),
            engine=backend.name,
            version=backend.version() or "",
            cpu=processor.name(),
            instruction_sets=_joined(processor.instruction_sets()),
        )

    @property
    def place(self) -> Path:
        """Raises RuntimeError where the user has no home folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return user_cache() / "verified" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def recall(subject: Subject) -> float | None:
    """The deviation that was remembered, see Model.deviation(); None: nothing that can be believed."""
    try:
        raw: Any = safe_json.loads(subject.place.read_bytes())
        if not isinstance(raw, dict) or raw != {**raw, **asdict(subject), "format": FORMAT}:
            return None
        found = raw["difference"]
    except (OSError, RuntimeError, ValueError, KeyError):
        return None
    if found is None:
        return math.inf
    known = isinstance(found, (int, float)) and not isinstance(found, bool) and 0.0 <= found < math.inf
    return float(found) if known else None


def remember(subject: Subject, difference: float) -> None:
    """Keep a deviation for the next load, where that is possible."""
    kept = difference if math.isfinite(difference) else None  # JSON has no other number for it
    record = {"format": FORMAT, **asdict(subject), "difference": kept}
    with suppress(BackendError, RuntimeError):
        write_atomically(subject.place, (json.dumps(record, indent=2) + "\n").encode())


def _identity(file: Path) -> str:
    found = file.stat()
    return f"{file.absolute()} {found.st_size} {found.st_mtime_ns}"


def _joined(sets: Iterable[str] | None) -> str:
    return " ".join(sets or ())
