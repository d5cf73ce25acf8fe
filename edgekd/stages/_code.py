"""The code of backends from outside, which is part of the keys of the stages that run it."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd import plugins
from edgekd.errors import BackendError
from edgekd.runtime import backends
from edgekd.runtime.backends import Backend


def code_of(used: Iterable[Backend]) -> dict[str, dict[str, str]]:
    """What identifies the code of backends from outside, to be added to a stage's settings.

    Returns:
        "backends": the digest of each one's code, by name. Empty where all are edgekd's own; see plugins.code_key.
    """
    keys = {backend.name: plugins.code_key("backend", backend.name) for backend in used}
    code = {name: key["code"] for name, key in keys.items() if key}
    return {"backends": code} if code else {}


def code_of_reference() -> dict[str, dict[str, str]]:
    """code_of() the reference backend; empty where there is none, which is an error only where a graph is opened."""
    try:
        return code_of([backends.reference()])
    except BackendError:
        return {}
