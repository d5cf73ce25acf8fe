"""JSON as a bad disk, another program or a forger leaves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.store import artifacts
from edgekd.store.artifacts import MANIFEST, digest, file_digest, write_json

GONE = object()
VALUES = (GONE, None, "text", "\0", True, -1, 0.5, 1e308, [], {}, [[{"a": 1}]])
# What is not the JSON of a manifest at all, from its text.
DAMAGES = {
    "truncated": lambda text: text[: len(text) // 2].encode(),
    "empty": lambda text: b"",
    "zeros": lambda text: bytes(100),
    "a list": lambda text: b"[]",
    "null": lambda text: b"null",
    "nested": lambda text: b"[" * 100_000,
    "nested less": lambda text: b'{"a":' * 200 + b"1" + b"}" * 200,
    "not UTF-8": lambda text: b'{"name": "\xe9"}',
    "UTF-16": lambda text: text.encode("utf-16"),
    "infinite": lambda text: text.replace("{", '{"more": 1e999,', 1).encode(),
    "NaN": lambda text: text.replace("{", '{"more": NaN,', 1).encode(),
    "5000 digits": lambda text: text.replace("{", f'{{"more": {"9" * 5000},', 1).encode(),
    "half a pair": lambda text: text.replace("{", '{"more": "\\ud800",', 1).encode(),
}


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values in a JSON value; of a list to its first item only."""
    if above:
        yield above
    for name in value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ():
        yield from places(value[name], (*above, name))


def changed(value: Any, place: tuple[Any, ...], new: object) -> Any:
    """A copy with another value at a place, or without it where `new` is GONE."""
    found = copy.deepcopy(value)
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    if new is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return found


def write_forged(folder: Path, manifest: Any) -> None:
    """Write a manifest with the digests that belong to what it now says, as far as it can have any."""
    for name, record in manifest["files"].items() if isinstance(manifest.get("files"), dict) else ():
        if isinstance(record, dict) and (folder / name).is_file() and "sha256" in record:
            record["sha256"] = file_digest(folder / name)
            record["size_bytes"] = (folder / name).stat().st_size if "size_bytes" in record else 0
    try:
        files = {name: record["sha256"] for name, record in manifest["files"].items()}
        manifest["digest"] = artifacts._content_digest(manifest["kind"], manifest["details"], files)
    except (KeyError, TypeError, AttributeError):
        pass
    checksum = digest({name: value for name, value in manifest.items() if name != "checksum"})
    write_json(folder / MANIFEST, {**manifest, "checksum": checksum})
