"""Where and when the measurements were made, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

# What is not written as a name in prose is.
_NAMES = {
    "cpu": "CPU",
    "arch": "Architecture",
    "os": "Operating system",
    "gpu": "GPU",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "torchvision": "torchvision",
}


def facts(environment: Mapping[str, str | int | float | None]) -> dict[str, str]:
    """The names and values of a record's environment, as the page shows them."""
    return {_named(name): "unknown" if value is None else str(value) for name, value in environment.items()}


def date(created: str) -> str:
    """An ISO time in UTC, e.g. "14 March 2026, 09:26 UTC"; as it is where it is none."""
    try:
        time = datetime.fromisoformat(created)
    except ValueError:
        return created
    utc = time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def _named(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
