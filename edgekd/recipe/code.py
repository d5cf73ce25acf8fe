"""Networks of the user's own in a recipe: `model: nets.py:build`. Files are found and read here; none is run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ArtifactError, UsageError
from edgekd.store.artifacts import MANIFEST, check_file, read_manifest

# Where a checkpoint folder carries code.
FOLDER = "code/"
_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)")
_FORM = "nets.py:build, a file and a function in it"


@dataclass(frozen=True)
class Reference:
    """A function in a file of the user's; `path` is absolute."""

    path: Path
    function: str

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"


@dataclass(frozen=True)
class CodeFile:
    """A file's content as it was read: whatever runs is this, and not what the disk holds later."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def reference(model: str, folder: Path | None = None) -> Reference | None:
    """The file and function that a recipe's `model` names; None for a name of a model source.

    Args:
        folder: what a relative path is relative to; default: the current folder.
    """
    found = _REFERENCE.fullmatch(model)
    if found is None:
        return None
    return Reference((folder or Path()).joinpath(found["file"]).absolute(), found["function"])


def check_reference(model: str) -> bool:
    """Whether `model` is the user's own network, whose file can be read.

    Raises:
        UsageError: it names a file without a function, or one that is not there.
    """
    found = reference(model)
    if found is None and re.search(r"\.py(:|$)", model):
        raise UsageError(f"{model!r} does not name a function", allowed=_FORM)
    if found is not None:
        read(found.path)
    return found is not None


def read(path: Path) -> CodeFile:
    """Raises UsageError where the file is not there or cannot be read."""
    try:
        return CodeFile(path, path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"the file {path} of a network cannot be read",
            found=error.strerror,
            allowed=f"{_FORM}; its path is relative to the recipe's file",
        ) from None


def with_absolute_paths(value: Any, folder: Path) -> Any:
    """A recipe's values, each path to code in them relative to `folder` made absolute."""
    if isinstance(value, list):
        return [with_absolute_paths(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_absolute_paths(item, folder) for key, item in value.items()}
    if isinstance(model := value.get("model"), str) and (found := reference(model, folder)) is not None:
        changed["model"] = str(found)
    return changed


def code_in(value: Any) -> Iterator[CodeFile]:
    """The code that a recipe names, and that the checkpoint folders carry that it names.

    Raises:
        UsageError: a file cannot be read.
        ArtifactError: a checkpoint's code was changed.
    """
    if isinstance(value, Mapping):
        if isinstance(model := value.get("model"), str) and (found := reference(model)) is not None:
            yield read(found.path)
        if isinstance(checkpoint := value.get("checkpoint"), str):
            yield from carried(Path(checkpoint))
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in inner:
        yield from code_in(item)


def carried(folder: Path) -> list[CodeFile]:
    """The code that a checkpoint folder carries; none where this is no such folder.

    Raises:
        ArtifactError: a file is not what the manifest names.
    """
    if not (folder / MANIFEST).is_file():
        return []
    records = read_manifest(folder).files
    found = []
    for name in sorted(name for name in records if name.startswith(FOLDER)):
        file = folder.absolute() / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{folder} names a file outside itself", found=name)
        check_file(file, records[name].sha256, owner=str(folder))
        found.append(read(file))
    return found


def allowed(value: Any, allow_code: bool | Collection[Path], *, name: str) -> tuple[CodeFile, ...]:
    """The code of a recipe that may run, each file once.

    Args:
        value: the recipe's values, with absolute paths.
        allow_code: all of it, or these files.
        name: the recipe's, for the message.

    Raises:
        UsageError: it brings code that nobody asked to run.
    """
    files = tuple(dict.fromkeys(code_in(value)))
    if allow_code is True:
        return files
    permitted = {path.absolute() for path in allow_code} if allow_code is not False else set()
    if unasked := [file for file in files if file.path not in permitted]:
        raise not_allowed(name, unasked)
    return files


def not_allowed(name: str, files: Sequence[CodeFile]) -> UsageError:
    """The error for code that nobody asked to run."""
    shown = "; ".join(f"{file.path}, sha256 {file.sha256}" for file in files)
    return UsageError(
        f"{name} brings Python code, which would run with your rights",
        found=shown,
        hint=f"look at {'it' if len(files) == 1 else 'them'}, and if you trust the code add --allow-code "
        "(from Python: allow_code=True)",
    )
