"""edgekd's version. A module of its own, so that the device side reads it without importing the package's verbs."""

from __future__ import annotations

from importlib import metadata


def _version() -> str:
    try:
        return metadata.version("edgekd")
    except metadata.PackageNotFoundError:
        # A checkout that is not installed: the version is in the package's metadata only.
        return "0+unknown"


__version__ = _version()
