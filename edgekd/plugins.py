"""Plugins are files: a file's name is the plugin's name, and it exports one typed object. Listing imports nothing."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgekd.errors import PluginError, UnknownNameError


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Attributes:
        noun: what one is called in a message.
        package: where the files lie, below edgekd.
        attribute: the name of the object that a file exports; None: the module itself is the plugin.
        contract: the type that this object must have, as "module:class".
        hyphens: whether names are written with hyphens, where the file's name has underscores.
    """

    noun: str
    package: str
    attribute: str | None = None
    contract: str | None = None
    hyphens: bool = False


KINDS = {
    "backend": Kind("inference backend", "runtime.backends", "BACKEND", "edgekd.runtime.backends:Backend"),
    "command": Kind("command", "cli", "command", "click:Command"),
    "source": Kind("data source", "data.sources", hyphens=True),
    "edit": Kind("architecture edit", "models.edits", "EDIT", "edgekd.models.edits:Edit"),
    "method": Kind("distillation method", "distillation.methods", "METHOD", "edgekd.distillation.method:Method"),
    "scheme": Kind("distillation scheme", "schemes", "SCHEME", "edgekd.schemes:Scheme", hyphens=True),
    "models": Kind("model source", "models.sources", "MODELS", "edgekd.models.sources:ModelSource"),
    "variant": Kind("export variant", "export.variants", "VARIANT", "edgekd.export.variants:Variant", hyphens=True),
}

_ROOT = Path(__file__).parent


def names(kind: str) -> tuple[str, ...]:
    """The names of all plugins of a kind, sorted; no plugin is imported.

    A file whose name begins with an underscore is a helper, not a plugin.
    """
    folder = _ROOT.joinpath(*KINDS[kind].package.split("."))
    stems = (module.name for module in pkgutil.iter_modules([str(folder)]) if module.name[0] != "_")
    return tuple(sorted(stem.replace("_", "-") if KINDS[kind].hyphens else stem for stem in stems))


def load(kind: str, name: str, *, where: str = "") -> Any:
    """The object that a plugin's file exports.

    Raises:
        UnknownNameError: there is no such file; the message has the nearest name and all names.
        PluginError: the file exports no object of the kind's type.
    """
    known, wanted = names(kind), KINDS[kind]
    if name not in known:
        raise UnknownNameError(wanted.noun, name, known, where=where)
    module = import_module(f"edgekd.{wanted.package}.{name.replace('-', '_')}")
    if wanted.attribute is None:
        return module
    if (found := getattr(module, wanted.attribute, None)) is None:
        raise PluginError(f"{module.__file__} exports no {wanted.attribute}", hint=f"a {wanted.noun} is this object")
    if wanted.contract is not None and not isinstance(found, contract(kind)):
        raise PluginError(
            f"{wanted.attribute} in {module.__file__} has another type",
            found=type(found).__name__,
            allowed=wanted.contract,
        )
    return found


def contract(kind: str) -> type[object]:
    """The type of the objects that plugins of a kind export."""
    module, _, name = str(KINDS[kind].contract).partition(":")
    found: type[object] = getattr(import_module(module), name)
    return found
