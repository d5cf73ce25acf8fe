"""Renders the report: one self-contained HTML file."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgekd.report import figures, svg
from edgekd.report.record import parse
from edgekd.report.view import view
from edgekd.store.artifacts import Json


def render(record: Json, origin: object = "the report's record") -> str:
    """The page as HTML.

    Args:
        record: the content of a report.json.
        origin: where it comes from, for messages.

    Raises:
        ArtifactError: the record is not valid.
    """
    return _environment().get_template("report.html.j2").render(view=view(parse(record, origin)))


def write(record: Json, path: Path, origin: object = "the report's record") -> Path:
    """Render into `path` with one rename, so that a reader never sees half a page. Args as render().

    Raises:
        ArtifactError: the record is not valid; nothing is written.
        OSError: the file cannot be written.
    """
    page = render(record, origin)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(page)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("edgekd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(size=figures.size, seconds=figures.seconds, amount=figures.amount, mark=svg.inline)
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """A path or a module's name, which a browser may break between its parts."""
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[/.])", name) if part)
