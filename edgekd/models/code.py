"""Code of a user's own network: a file is identified by its content, and runs only where it was allowed.

Files are not looked up on sys.path, and no .pyc is read: what runs is the content whose digest was allowed.
"""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import InspectLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from edgekd import plugins
from edgekd.errors import ModelError, UsageError, summary
from edgekd.models.architecture import Architecture, Code
from edgekd.recipe.code import CodeFile, code_not_allowed, read, reference

_ONE_FILE = "one file must hold the whole network; what it imports must be an installed package, not a file beside it"

# The files that may run in this process now; threads of one run share them.
_permitted: list[CodeFile] = []
_loading: list[Path] = []


@contextmanager
def permitted(files: Iterable[CodeFile]) -> Iterator[None]:
    """Allow code with the content of these files to run within the context.

    Raises:
        UsageError: a file of a network itself calls edgekd while it is loaded.
    """
    if _loading:
        raise UsageError(
            f"{_loading[-1]} calls edgekd while its network is loaded",
            hint='put the call behind `if __name__ == "__main__":`',
        )
    added = tuple(files)
    _permitted.extend(added)
    try:
        yield
    finally:
        for file in added:
            _permitted.remove(file)


def code_of(model: str) -> Code | None:
    """The code that a recipe's `model` names, as it was when it was allowed; None for a model of a source.

    Raises:
        UsageError: the file cannot be read.
    """
    found = reference(model)
    if found is None:
        return None
    known = (file for file in _permitted if file.path == found.path)
    file = next(known, None) or read(found.path)
    return Code(file=found.path.name, sha256=file.sha256, function=found.function)


def codes_in(architecture: Architecture) -> tuple[Code, ...]:
    """All code that an architecture is built with, including that of networks in its edits, each once."""
    found = [architecture.code] if architecture.code is not None else []
    for edit in architecture.edits:
        if edit.get("edit") in plugins.names("edit"):
            for further in plugins.load("edit", edit["edit"]).architectures(edit):
                found.extend(codes_in(further))
    return tuple(dict.fromkeys(found))


def source_of(code: Code) -> CodeFile:
    """The allowed file with this content.

    Raises:
        UsageError: this code is not allowed to run.
    """
    for file in _permitted:
        if file.sha256 == code.sha256:
            return file
    raise UsageError(
        f"{code} is Python code, which would run with your rights",
        found=f"{code.file}, sha256 {code.sha256}",
        hint="read it, and if you trust the code add --allow-code (from Python: allow_code=True)",
    )


def require_permission(files: Iterable[CodeFile], *, owner: str) -> None:
    """Raises UsageError for the first file whose content is not allowed to run; `owner` is named in the message."""
    allowed = {file.sha256 for file in _permitted}
    for file in files:
        if file.sha256 not in allowed:
            raise code_not_allowed(owner, [file])


class _Loader(InspectLoader):
    """Loads a module from a file's content in memory."""

    def __init__(self, file: CodeFile) -> None:
        self._file = file

    def get_source(self, fullname: str) -> str:
        return self._file.content.decode(errors="replace")

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._file.content, str(self._file.path))


def module_of(file: CodeFile) -> ModuleType:
    """The file as a module, named after its content; equal content is loaded once per process.

    Raises:
        ModelError: the file raises an error, or imports a file beside it, which the checkpoint would not carry.
    """
    name = _module_name(file)
    if (known := sys.modules.get(name)) is not None:
        return known
    _refuse_local_imports(file)
    loader = _Loader(file)
    spec = spec_from_loader(name, loader, origin=str(file.path))
    assert spec is not None
    module = module_from_spec(spec)
    module.__file__ = str(file.path)
    # Dataclasses and the ONNX exporter look up a class's module by name.
    sys.modules[name] = module
    _loading.append(file.path)
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        hint = _ONE_FILE if isinstance(error, ImportError) else None
        raise user_code_error(f"the file {file.path} of a network cannot be loaded", error, file, hint=hint) from error
    finally:
        _loading.pop()
    return module


def _module_name(file: CodeFile) -> str:
    return f"_edgekd_code_{file.sha256}"


def _refuse_local_imports(file: CodeFile) -> None:
    """Raises ModelError for an import of a file beside this one, which would fail elsewhere."""
    folder = file.path.parent
    if {"site-packages", "dist-packages"} & set(folder.parts):
        return
    try:
        tree = ast.parse(file.content)
    except (SyntaxError, ValueError):
        return  # loading it reports the error, with the line
    for node in ast.walk(tree):
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported = [node.module]
        for name in {dotted.partition(".")[0] for dotted in imported}:
            spec = find_spec(name) if name not in sys.builtin_module_names else None
            beside = [str(folder / f"{name}.py"), str(folder / name / "__init__.py")]
            if spec is not None and spec.origin in beside:
                raise ModelError(f"{file.path} imports the file {spec.origin} beside it", hint=_ONE_FILE)


def user_code_error(what: str, error: BaseException, file: CodeFile, *, hint: str | None = None) -> ModelError:
    """The ModelError for an exception in the user's code, with the line of their file.

    Args:
        what: the message.
        error: what the code raised.
        file: the user's file.
        hint: the next step.
    """
    found = summary(error)
    # Equal content that was loaded from another path first has that path in its traceback.
    places = {str(file.path), getattr(sys.modules.get(_module_name(file)), "__file__", None)}
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in places]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else None
    if line is not None:
        lines = file.content.decode(errors="replace").splitlines()
        source = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        found += f" ({file.path}, line {line}: {source})"
    return ModelError(what, found=found, hint=hint)
