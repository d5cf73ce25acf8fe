"""Plugins by name: files of edgekd, then entry points of installed packages, then folders that the user names.

A file's name is the plugin's name, and it exports one typed object, which is checked when it is loaded. Listing imports
nothing, so a broken plugin affects neither the others nor `--help` until it is loaded.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from edgekd.errors import (
    EdgekdError,
    MissingDependencyError,
    PluginError,
    PluginWarning,
    UnknownNameError,
    UsageError,
    nearest,
)
from edgekd.plugin_members import answer_of, answering, in_words, lacking, members, misspelt, wrong_member
from edgekd.plugin_places import Kind, Plugin, folders_in, in_folder, installed, plural, private_name

# The environment variable with the user's folders, each with a subfolder per kind; processes that edgekd starts see it.
FOLDERS = "EDGEKD_PLUGINS"

KINDS = {
    "backend": Kind("inference backend", "runtime.backends", "BACKEND", "edgekd.runtime.backends:Backend"),
    "command": Kind("command", "cli", "command", "click:Command", outside=False),
    "source": Kind("data source", "data.sources", "SOURCE", "edgekd.data.sources:Source", hyphens=True),
    "edit": Kind("architecture edit", "models.edits", "EDIT", "edgekd.models.edits:Edit", outside=False),
    "method": Kind("distillation method", "distillation.methods", "METHOD", "edgekd.distillation.method:Method"),
    "scheme": Kind("distillation scheme", "schemes", "SCHEME", "edgekd.schemes:Scheme", hyphens=True),
    "models": Kind("model source", "models.sources", "MODELS", "edgekd.models.sources:ModelSource"),
    "variant": Kind("export variant", "export.variants", "VARIANT", "edgekd.export.variant:Variant", hyphens=True),
}

P = TypeVar("P")

_ROOT = Path(__file__).parent
# Of each plugin, the object that its file exports, and that object checked and named.
_loaded: dict[Plugin, tuple[Any, Any]] = {}


def command(*words: str) -> str:
    """A command line of edgekd that finds the same plugins as this process, for a message."""
    folders = [word for folder in folders_in(FOLDERS) for word in ("--plugins", str(folder))]
    return shlex.join(["edgekd", *folders, *words])


def find(kind: str) -> list[Plugin]:
    """All plugins of a kind: edgekd's by name, then those of packages, then those in folders; nothing is imported.

    A name that exists twice is listed twice, unless both are the same file. A file whose name begins with an underscore
    is a helper, not a plugin.

    Raises:
        UsageError: a folder that the user names does not exist, or has no plugins.
    """
    wanted = KINDS[kind]
    home = _ROOT.joinpath(*wanted.package.split("."))
    found = list(in_folder(kind, wanted, home, f"edgekd.{wanted.package}", "edgekd"))
    if wanted.outside:
        found += installed(kind, wanted)
        for folder in folders_of_user():
            inside = (folder / plural(kind)).resolve()
            found += in_folder(kind, wanted, inside, private_name(inside), str(folder))
    return list({(plugin.name, plugin.module, plugin.attribute): plugin for plugin in found}.values())


def names(kind: str) -> tuple[str, ...]:
    """The names of all plugins of a kind, in the order of find(); nothing is imported. Raises as find()."""
    return tuple(dict.fromkeys(plugin.name for plugin in find(kind)))


def load(kind: str, name: str, *, where: str = "") -> Any:
    """The object that a plugin's file exports, checked, and with the plugin's name where its contract has one.

    Args:
        where: what names it, e.g. "data.source"; for the message.

    Raises:
        UnknownNameError: there is no such plugin; the message has the nearest name and all names.
        PluginError: two plugins have this name, or its file is broken; the message names the files.
        UsageError: as find().
    """
    known = find(kind)
    found = [plugin for plugin in known if plugin.name == name]
    if not found:
        raise UnknownNameError(KINDS[kind].noun, name, {plugin.name for plugin in known}, where=where)
    if len(found) > 1:
        raise _ambiguous(found)
    return _load(found[0])


def listed(kind: str) -> Iterator[tuple[Plugin, EdgekdError | None]]:
    """Every plugin of a kind, with an error where its name exists twice; nothing is imported."""
    known = find(kind)
    for plugin in known:
        same = [other for other in known if other.name == plugin.name]
        yield plugin, _ambiguous(same) if len(same) > 1 else None


def check(kind: str) -> Iterator[tuple[Plugin, EdgekdError | None]]:
    """Import every plugin of a kind: each with its error, None where it loads."""
    for plugin, problem in listed(kind):
        try:
            if problem is None:
                _load(plugin)
        except EdgekdError as error:
            yield plugin, error
        else:
            yield plugin, problem


def failure(error: BaseException) -> PluginError | None:
    """The error of a plugin from outside, whose code raised `error` while it was used; None if no such code ran.

    Args:
        error: any exception, with its traceback.

    Returns:
        An error that names the plugin, its file, and the last line of it in the traceback.
    """
    outside = {plugin.module: plugin for plugin in _loaded if plugin.origin != "edgekd"}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        plugin = outside.get(str(frame.f_globals.get("__name__")))
        if plugin is not None:
            return PluginError(
                f"the {KINDS[plugin.kind].noun} {plugin.name!r} failed: {_file(plugin)}",
                found=_explain(error, plugin.module),
                hint="repair it; called from Python, edgekd raises the exception itself, with the whole traceback",
            )
    # Python makes a RuntimeError of a StopIteration that a plugin's code lets into a generator.
    return failure(error.__cause__) if error.__cause__ is not None else None


def load_all(kind: str) -> dict[str, Any]:
    """The objects of all plugins of a kind, by name.

    A broken one from outside is left out with a PluginWarning.

    Raises:
        PluginError: one of edgekd's own is broken, or one from outside has its name.
    """
    own = {plugin.name for plugin in find(kind) if plugin.origin == "edgekd"}
    loaded = {}
    for name in names(kind):
        try:
            loaded[name] = load(kind, name)
        except EdgekdError as error:
            if name in own:
                raise
            warnings.warn(PluginWarning(f"left out: {error}"), stacklevel=2)
    return loaded


def code_key(kind: str, name: str) -> dict[str, str]:
    """What identifies the code of a plugin from outside, to be added to the settings of a stage that runs it.

    Args:
        kind, name: of a plugin that can be loaded.

    Returns:
        "code": a SHA-256 over its file and the helpers beside it (names with an underscore in front), and a package's
        version. Empty for edgekd's own, where a stage's version says when its code changed.
    """
    plugin = next((plugin for plugin in find(kind) if plugin.name == name), None)
    if plugin is None or plugin.origin == "edgekd":
        return {}
    file = Path(str(_import(plugin).__file__))
    digest = hashlib.sha256(plugin.origin.encode() if plugin.folder is None else b"")
    for part in (file, *sorted(file.parent.glob("_*.py"))):
        digest.update(part.name.encode() + b"\0" + part.read_bytes())
    return {"code": digest.hexdigest()}


def named(plugin: P, name: str) -> P:
    """A copy of a plugin's object under a name, where its contract has one: the file does not repeat it.

    Two files may export the same object, so that it cannot have the name itself.
    """
    if not is_dataclass(plugin) or "name" not in {field.name for field in fields(plugin) if not field.init}:
        return plugin
    made = copy(plugin)
    object.__setattr__(made, "name", name)  # the contracts are frozen
    return made


def contract(kind: str) -> type[object]:
    """The type of the objects that plugins of a kind export."""
    module, _, name = str(KINDS[kind].contract).partition(":")
    found: type[object] = getattr(import_module(module), name)
    return found


def outside_kinds() -> list[str]:
    """The kinds that packages and folders may add plugins of."""
    return [kind for kind, wanted in KINDS.items() if wanted.outside]


def kind_named(text: str) -> str:
    """A kind by its name, singular or plural. Raises UnknownNameError."""
    for kind in KINDS:
        if text in (kind, plural(kind)):
            return kind
    raise UnknownNameError("kind of plugin", text, KINDS)


def folders_of_user() -> list[Path]:
    """The folders in $EDGEKD_PLUGINS, which `edgekd --plugins` adds to.

    A subfolder whose name is nearly that of a kind is named in a PluginWarning.

    Raises:
        UsageError: one does not exist, or has no subfolder with the name of a kind.
    """
    allowed = [plural(kind) for kind in outside_kinds()]
    found = folders_in(FOLDERS)
    for folder in found:
        inside = sorted(child.name for child in folder.iterdir() if child.is_dir())
        if not set(inside) & set(allowed):
            raise UsageError(
                f"{folder}, named by {FOLDERS} or --plugins, has no plugins",
                found=", ".join(inside) or "no folders",
                allowed=f"subfolders {', '.join(allowed)}",
            )
        for name in inside:
            if name not in allowed and (meant := nearest(name, allowed)) is not None:
                warnings.warn(PluginWarning(f"left out: {folder / name}; did you mean {meant}/?"), stacklevel=2)
    return found


def environment() -> dict[str, str]:
    """The user's folders as absolute paths, for a process that starts elsewhere. Raises as folders_of_user()."""
    return {FOLDERS: os.pathsep.join(map(str, folders_of_user()))} if FOLDERS in os.environ else {}


def _load(plugin: Plugin) -> Any:
    wanted, module = KINDS[plugin.kind], _import(plugin)
    if plugin.attribute is None:
        return module
    if (found := getattr(module, plugin.attribute, None)) is None:
        near = nearest(plugin.attribute, [name for name, value in vars(module).items() if not isinstance(value, type)])
        raise _broken(
            plugin,
            found=f"no {plugin.attribute}{f', but {near}' if near else ''}",
            allowed=f"{plugin.attribute} = …, {_described(wanted)}",
            hint="edgekd looks for an object of this name",
        )
    known = _loaded.get(plugin)
    if known is None or known[0] is not found:  # another object than before: it is checked once
        known = _loaded[plugin] = found, _checked(plugin, found)
    return known[1]


def _checked(plugin: Plugin, found: Any) -> Any:
    """The object under its plugin's name. Raises PluginError where it does not fit the kind's contract."""
    wanted = KINDS[plugin.kind]
    if wanted.contract is None:
        return found
    if not isinstance(found, contract(plugin.kind)):
        kind = f"{plugin.attribute} is of type {type(found).__name__}"
        raise _broken(plugin, found=kind, allowed=_described(wanted))
    if (wrong := wrong_member(found, contract(plugin.kind))) is not None:
        raise _broken(plugin, found=wrong.found, allowed=wrong.allowed)
    made = named(found, plugin.name)
    if (check_declaration := getattr(made, "check_declaration", None)) is not None:
        try:
            check_declaration()
        except PluginError as error:
            found = error.what if error.found is None else f"{error.what}: {error.found}"
            raise _broken(plugin, found=found, allowed=error.allowed, hint=error.hint) from None
    # A loss is tried on tensors before it is trained with.
    return made if plugin.origin == "edgekd" or plugin.kind == "method" else _answering(plugin, made)


def _answering(plugin: Plugin, found: Any) -> Any:
    """A copy of an object from outside, whose functions' return values are held against its kind's contract."""
    made, annotations = copy(found), get_type_hints(contract(plugin.kind))
    for member in members(contract(plugin.kind)):
        function, answer = getattr(found, member), answer_of(annotations[member])
        if not callable(function) or answer is None:
            continue

        def refuse(returned: object, member: str = member, answer: Any = answer) -> PluginError:
            without = lacking(returned, answer)
            shown = f"{returned!r:.80}, of type {type(returned).__name__}"
            missing = f", which has no right {', '.join(without)}" if without else ""
            return PluginError(
                f"the {KINDS[plugin.kind].noun} {plugin.name!r} failed: {_file(plugin)}",
                found=f"{member}() returned {shown}{missing}",
                allowed=in_words(answer),
            )

        object.__setattr__(made, member, answering(function, answer, refuse))  # the contracts are frozen
    return made


def _described(kind: Kind) -> str:
    return kind.contract.replace(":", ".") if kind.contract else "any object"


def _import(plugin: Plugin) -> ModuleType:
    package, _, _ = plugin.module.rpartition(".")
    if plugin.folder is not None and plugin.origin != "edgekd" and package not in sys.modules:
        # A package without a file of its own: the usual machinery finds modules, and their helpers, on its path.
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(plugin.folder)]
    try:
        return import_module(plugin.module)
    except MissingDependencyError:
        raise
    except (Exception, SystemExit) as error:
        hint = misspelt(error, contract(plugin.kind)) if isinstance(error, TypeError) else None
        raise _broken(plugin, found=_explain(error, plugin.module), hint=hint) from error


def _explain(error: BaseException, module: str) -> str:
    """An error in one line, with the line of the plugin that raised it."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}, in {error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == module:
            source = linecache.getline(frame.f_code.co_filename, line).strip()
            return f"{text}, in line {line}: {source}"
    return text


def _broken(plugin: Plugin, *, found: str, allowed: object = None, hint: str | None = None) -> PluginError:
    return PluginError(
        f"the {KINDS[plugin.kind].noun} {plugin.name!r} is broken: {_file(plugin)}",
        found=found,
        allowed=allowed,
        hint=hint or f"repair it, or remove it; `{command('plugins', plural(plugin.kind), '--check')}` tries them all",
    )


def _file(plugin: Plugin) -> str:
    """The file of a plugin whose import was tried."""
    try:
        spec = find_spec(plugin.module) if plugin.folder is None else None
    except Exception:  # importing the package above it may fail in any way, and is reported already
        spec = None
    return f"{spec.origin} of {plugin.origin}" if spec is not None and spec.origin else plugin.place


def _ambiguous(found: list[Plugin]) -> PluginError:
    return PluginError(
        f"two {KINDS[found[0].kind].noun} plugins have the name {found[0].name!r}",
        found=" and ".join(plugin.place for plugin in found),
        hint="rename one, or leave its folder or package out",
    )
