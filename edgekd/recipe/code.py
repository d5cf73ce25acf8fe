"""Networks of the user's own in a recipe: `model: nets.py:build`. The files are found and read here, not run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ArtifactError, UsageError
from edgekd.recipe.onnx_file import onnx_file
from edgekd.store.artifacts import MANIFEST, check_file, read_manifest

# Where a checkpoint folder carries code.
FOLDER = "code/"
_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)")
FORM = "nets.py:build, a file and a function in it"


@dataclass(frozen=True)
class Reference:
    """A function in a file of the user's; `path` is absolute."""

    path: Path
    function: str

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"


@dataclass(frozen=True)
class CodeFile:
    """A file's content as it was read. Exactly this content runs, even if the file on the disk changes later."""

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
    match = _REFERENCE.fullmatch(model)
    if match is None:
        return None
    return Reference((folder or Path()).joinpath(match["file"]).absolute(), match["function"])


def check_reference(model: str) -> bool:
    """Whether `model` names a network of the user's own.

    Raises:
        UsageError: it names a file without a function, or a file that cannot be read.
    """
    own = reference(model)
    if own is None and re.search(r"\.py\s*([:/\\]|$)", model, re.IGNORECASE):
        raise UsageError(f"{model!r} does not name a function", allowed=FORM)
    if own is not None:
        read(own.path)
    return own is not None


def read(path: Path) -> CodeFile:
    """The file with its content. Raises UsageError where it cannot be read."""
    try:
        return CodeFile(path, path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"the file {path} of a network cannot be read",
            found=error.strerror,
            allowed=f"{FORM}; its path is relative to the recipe's file",
        ) from None


def with_absolute_paths(value: Any, folder: Path) -> Any:
    """A recipe's values with absolute paths to code and to ONNX files; relative ones are relative to `folder`."""
    if isinstance(value, list):
        return [with_absolute_paths(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_absolute_paths(item, folder) for key, item in value.items()}
    if isinstance(model := value.get("model"), str) and (own := reference(model, folder)) is not None:
        changed["model"] = str(own)
    elif isinstance(model, str) and (file := onnx_file(model, folder)) is not None:
        changed["model"] = str(file)
    return changed


def code_in(value: Any) -> Iterator[CodeFile]:
    """The code that a recipe names, and the code in the checkpoint folders that it names.

    Raises:
        UsageError: a file cannot be read.
        ArtifactError: a checkpoint's code was changed.
    """
    if isinstance(value, Mapping):
        if isinstance(model := value.get("model"), str) and (own := reference(model)) is not None:
            yield read(own.path)
        if isinstance(checkpoint := value.get("checkpoint"), str):
            yield from carried_code(Path(checkpoint))
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in inner:
        yield from code_in(item)


def carried_code(folder: Path) -> list[CodeFile]:
    """The code in a checkpoint folder; empty where the folder is not an artifact.

    Raises:
        ArtifactError: the manifest or a file was changed, or a file lies outside the folder.
    """
    if not (folder / MANIFEST).is_file():
        return []
    records = read_manifest(folder).files
    files = []
    for name in sorted(name for name in records if name.startswith(FOLDER)):
        file = folder.absolute() / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{folder} names a file outside itself", found=name)
        check_file(file, records[name].sha256, owner=str(folder))
        files.append(read(file))
    return files


def allowed_code(value: Any, allow_code: bool | Collection[Path], *, name: str) -> tuple[CodeFile, ...]:
    """The code of a recipe that may run, each file once.

    Args:
        value: the recipe's values, with absolute paths.
        allow_code: True for all of it, False for none, or the files that may run.
        name: of the recipe, for the message.

    Raises:
        UsageError: it brings code that was not allowed.
    """
    files = tuple(dict.fromkeys(code_in(value)))
    if allow_code is True:
        return files
    permitted = {path.absolute() for path in allow_code} if allow_code is not False else set()
    if refused := [file for file in files if file.path not in permitted]:
        raise code_not_allowed(name, refused)
    return files


def code_not_allowed(name: str, files: Sequence[CodeFile]) -> UsageError:
    """The error for code that was not allowed to run."""
    shown = "; ".join(f"{file.path}, sha256 {file.sha256}" for file in files)
    return UsageError(
        f"{name} brings Python code, which would run with your rights",
        found=shown,
        hint=f"read {'it' if len(files) == 1 else 'them'}, and if you trust the code add --allow-code "
        "(from Python: allow_code=True)",
    )
