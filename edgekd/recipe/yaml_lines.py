"""YAML with the line of each key and value, for error messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from edgekd import safe_yaml
from edgekd.errors import RecipeError, UsageError

Location = tuple[str | int, ...]


@dataclass
class Document:
    """A parsed document.

    Attributes:
        name: of the file, for messages.
        value: the document's content.
        lines: the line of each key and list item.
        overridden: the override that set a value, by location.
        problems: mistakes that valid YAML can have, e.g. a repeated key.
    """

    name: str
    value: Any
    lines: dict[Location, int]
    overridden: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def where(self, location: Location) -> str:
        """`file.yaml:12`: the line of a location or of the nearest one around it, or the override that set it."""
        if location and location not in self.overridden and location not in self.lines:
            for path, begun in self.overridden.items():
                if path[: len(location)] == location:  # a section that an override began
                    return f"--set {begun}"
        for length in range(len(location), -1, -1):
            if (override := self.overridden.get(location[:length])) is not None:
                return f"--set {override}"
            if (line := self.lines.get(location[:length])) is not None:
                return f"{self.name}:{line}"
        return self.name


def parse(text: str, *, name: str) -> Document:
    """Parse a recipe's text. Raises RecipeError where it is not YAML or not a mapping."""
    document = Document(name, None, {})
    try:
        node = safe_yaml.compose(text)
        if node is not None:
            _walk(node, (), document)
            document.value = safe_yaml.construct(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(name, [f"{name}{line}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if not isinstance(document.value, dict):
        found = "nothing" if document.value is None else type(document.value).__name__
        raise RecipeError(name, [f"{name}: a recipe is a mapping of sections; found: {found}"])
    return document


def set_value(document: Document, override: str) -> None:
    """Apply `key.path=value` in place; the value is YAML, list items are numbers: `distill.objective.0.temperature=2`.

    Raises:
        UsageError: not of that form, or a path through something that is not a section.
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {override}", found="no key=value", allowed="for example --set distill.epochs=2")
    try:
        value = safe_yaml.load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}", found=f"the value is not valid YAML: {error}") from None
    *parents, last = (int(part) if part.isdigit() else part for part in path.strip().split("."))
    target = document.value
    for depth, part in enumerate(parents):
        target = _descend(target, part, override, path=parents[: depth + 1], following=[*parents, last][depth + 1])
    if isinstance(target, list) and isinstance(last, int) and last < len(target):
        target[last] = value
    elif isinstance(target, dict):
        target[str(last)] = value
    else:
        raise UsageError(f"--set {override}", found=f"{format_location(tuple(parents))} has no item {last!r}")
    document.overridden[(*parents, last)] = override


def format_location(location: Sequence[str | int]) -> str:
    """A location as text: distill.objective[0].method."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".")


def _descend(target: Any, part: str | int, override: str, *, path: Sequence[str | int], following: str | int) -> Any:
    if isinstance(target, list) and isinstance(part, int) and part < len(target):
        return target[part]
    if isinstance(target, dict):
        inner = target.get(str(part))
        if inner is None and isinstance(following, int):
            raise UsageError(
                f"--set {override}",
                found=f"the recipe does not write out {format_location(path)}",
                hint=f"set the whole list: --set '{format_location(path)}=[…]'",
            )
        if inner is None:
            inner = target[str(part)] = {}
        return inner
    raise UsageError(f"--set {override}", found=f"{format_location(path)} is not a section of the recipe")


def _walk(node: yaml.Node, location: Location, document: Document) -> None:
    document.lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*location, index), document)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                place = format_location((*location, name))
                document.problems.append(f"{document.name}:{line} {place}: repeated key (first in line {seen[name]})")
            seen[name] = line
            _walk(value, (*location, name), document)
            document.lines[(*location, name)] = line
