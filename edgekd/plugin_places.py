"""Where plugins are found: in folders, and behind entry points of installed packages. Nothing is imported here."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from edgekd.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Attributes:
        noun: the kind's name in messages.
        package: the package of the files, below edgekd.
        attribute: the name of the object that a file exports; None: the module itself is the plugin.
        contract: the type that this object must have, as "module:class".
        hyphens: whether names are written with hyphens, where the file's name has underscores.
        outside: whether installed packages and the user's folders may add plugins.
    """

    noun: str
    package: str
    attribute: str | None = None
    contract: str | None = None
    hyphens: bool = False
    outside: bool = True


@dataclass(frozen=True)
class Plugin:
    """Where a plugin was found; it is not imported.

    Attributes:
        origin: "edgekd", an installed package with its version, or the user's folder.
        module: the module to import.
        attribute: the name of the object in that module; None: the module itself.
        folder: of the file; None for an installed package.
    """

    kind: str
    name: str
    origin: str
    module: str
    attribute: str | None
    folder: Path | None

    @property
    def place(self) -> str:
        """The file, as far as it is known without importing the plugin."""
        if self.folder is None:
            return f"{self.module} of {self.origin}"
        stem = self.module.rpartition(".")[2]
        file = self.folder / f"{stem}.py"
        return str(file if file.is_file() else self.folder / stem)


def plural(kind: str) -> str:
    """The name of a kind's folders, and of its entry points after "edgekd."."""
    return kind if kind.endswith("s") else f"{kind}s"


def in_folder(kind: str, wanted: Kind, folder: Path, package: str, origin: str) -> Iterator[Plugin]:
    """The plugins in a folder, by name, as modules of `package`; a file with a leading underscore is a helper."""
    for stem in sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.name[0] != "_"):
        name = stem.replace("_", "-") if wanted.hyphens else stem
        yield Plugin(kind, name, origin, f"{package}.{stem}", wanted.attribute, folder)


def installed(kind: str, wanted: Kind) -> tuple[Plugin, ...]:
    """The plugins of installed packages, by name: entry points `name = module` or `name = module:OBJECT`."""
    return _installed(kind, wanted, tuple(sys.path))


def folders_in(variable: str) -> list[Path]:
    """The folders in an environment variable, each once. Raises UsageError where one does not exist."""
    folders = [Path(text).expanduser() for text in os.environ.get(variable, "").split(os.pathsep) if text]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"{variable} names {folder}, which is not a folder",
                found="a file" if folder.exists() else "nothing",
                allowed=f"folders, separated by {os.pathsep!r}",
                hint=f"create the folder, or remove it from {variable}",
            )
    return list(dict.fromkeys(folder.resolve() for folder in folders))


@cache
def _installed(kind: str, wanted: Kind, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Cached per sys.path, which is `path`, because reading the metadata of all packages is slow."""
    points = sorted(metadata.entry_points(group=f"edgekd.{plural(kind)}"), key=lambda point: point.name)
    return tuple(
        Plugin(kind, point.name, _package_of(point), point.module, point.attr or wanted.attribute, None)
        for point in points
    )


def _package_of(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an installed package"


def private_name(folder: Path) -> str:
    """The name of the package that a user's folder is imported as, which no other import uses."""
    return f"edgekd_plugins_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
