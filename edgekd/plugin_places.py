"""Where plugins lie: in folders, and behind entry points of installed packages. Nothing of them is imported."""

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
        noun: what one is called in a message.
        package: where the files lie, below edgekd.
        attribute: the name of the object that a file exports; None: the module itself is the plugin.
        contract: the type that this object must have, as "module:class".
        hyphens: whether names are written with hyphens, where the file's name has underscores.
        outside: whether packages and folders may add to it.
    """

    noun: str
    package: str
    attribute: str | None = None
    contract: str | None = None
    hyphens: bool = False
    outside: bool = True


@dataclass(frozen=True)
class Plugin:
    """Where a plugin was found; nothing of it is imported.

    Attributes:
        origin: "edgekd", an installed package with its version, or the user's folder.
        module: what is imported for it.
        attribute: the name of the object in there; None: the module itself.
        folder: that the file lies in; None for an installed package.
    """

    kind: str
    name: str
    origin: str
    module: str
    attribute: str | None
    folder: Path | None

    @property
    def place(self) -> str:
        """The file, as far as it is known without importing anything."""
        if self.folder is None:
            return f"{self.module} of {self.origin}"
        stem = self.module.rpartition(".")[2]
        file = self.folder / f"{stem}.py"
        return str(file if file.is_file() else self.folder / stem)


def plural(kind: str) -> str:
    """What a kind's folders are called, and its entry points after "edgekd."."""
    return kind if kind.endswith("s") else f"{kind}s"


def in_folder(kind: str, wanted: Kind, folder: Path, package: str, origin: str) -> Iterator[Plugin]:
    """The files of a folder, by name, as modules of a package; a name with an underscore in front is a helper's."""
    for stem in sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.name[0] != "_"):
        name = stem.replace("_", "-") if wanted.hyphens else stem
        yield Plugin(kind, name, origin, f"{package}.{stem}", wanted.attribute, folder)


def installed(kind: str, wanted: Kind) -> tuple[Plugin, ...]:
    """Entry points `name = module` or `name = module:OBJECT` of packages, by name."""
    return _installed(kind, wanted, tuple(sys.path))


def folders_in(variable: str) -> list[Path]:
    """The folders that an environment variable lists, each once. Raises UsageError where one is not there."""
    folders = [Path(text).expanduser() for text in os.environ.get(variable, "").split(os.pathsep) if text]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"{variable} names {folder}",
                found="a file" if folder.exists() else "nothing there",
                allowed=f"folders, separated by {os.pathsep!r}",
                hint=f"make the folder, or take it out of {variable}",
            )
    return list(dict.fromkeys(folder.resolve() for folder in folders))


@cache
def _installed(kind: str, wanted: Kind, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Reading the metadata of all packages takes a while: once for each sys.path, which is `path`."""
    points = sorted(metadata.entry_points(group=f"edgekd.{plural(kind)}"), key=lambda point: point.name)
    return tuple(
        Plugin(kind, point.name, _package_of(point), point.module, point.attr or wanted.attribute, None)
        for point in points
    )


def _package_of(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an installed package"


def private_name(folder: Path) -> str:
    """The package whose modules are the files of a user's folder: no other import meets them by accident."""
    return f"edgekd_plugins_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
