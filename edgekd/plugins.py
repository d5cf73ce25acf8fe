"""Plugins are files: a file's name is the plugin's name. Listing them imports nothing."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgekd.errors import UnknownNameError


@dataclass(frozen=True)
class Kind:
    """A folder of plugins: what one is called, and whether its names are written with hyphens."""

    noun: str
    package: str
    hyphens: bool = False


KINDS = {
    "backend": Kind("inference backend", "runtime.backends"),
    "command": Kind("command", "cli"),
    "source": Kind("data source", "data.sources", hyphens=True),
    "edit": Kind("architecture edit", "models.edits"),
    "method": Kind("distillation method", "distillation.methods"),
    "scheme": Kind("distillation scheme", "schemes", hyphens=True),
    "zoo": Kind("model source", "models.sources"),
}

_ROOT = Path(__file__).parent


def names(kind: str) -> tuple[str, ...]:
    """The names of all plugins of a kind, sorted; no plugin is imported.

    A file whose name begins with an underscore is a helper, not a plugin.
    """
    folder = _ROOT.joinpath(*KINDS[kind].package.split("."))
    stems = (module.name for module in pkgutil.iter_modules([str(folder)]) if module.name[0] != "_")
    return tuple(sorted(stem.replace("_", "-") if KINDS[kind].hyphens else stem for stem in stems))


def load(kind: str, name: str, *, where: str = "") -> ModuleType:
    """Import one plugin's file.

    Raises:
        UnknownNameError: there is no such file; says the nearest name and all names.
    """
    known = names(kind)
    if name not in known:
        raise UnknownNameError(KINDS[kind].noun, name, known, where=where)
    return import_module(f"edgekd.{KINDS[kind].package}.{name.replace('-', '_')}")
