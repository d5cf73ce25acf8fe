"""YAML from anyone: plain values only, of limited size and depth, so that a document can neither crash nor stall.

Numbers and booleans are those of YAML 1.2: 1e-3 is a number, 1:30 and 010 are text, only true and false are booleans.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

_LARGEST = 100_000  # values, a repeated alias counted each time
_DEEPEST = 50
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_FLOAT = "tag:yaml.org,2002:float"
_PLAIN = frozenset(f"tag:yaml.org,2002:{name}" for name in "map seq str int float bool null merge".split())


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":int", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d{0,30})$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load(text: str) -> Any:
    """The document's value; None for an empty one. Raises yaml.YAMLError as compose() and construct()."""
    node = compose(text)
    return construct(node) if node is not None else None


def compose(text: str) -> yaml.Node | None:
    """The document's nodes, with their lines; None for an empty one.

    Raises:
        yaml.YAMLError: not YAML, a tag other than those of plain values, a control character, or a document that is too
            deep, too large or contains itself.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("brackets or sections are nested too deeply") from None
    if node is not None:
        _check(node, 0, 0)
    return node


def construct(node: yaml.Node) -> Any:
    """The value of composed nodes. Raises yaml.YAMLError where a value does not fit its tag."""
    try:
        return _Loader("").construct_document(node)
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # e.g. `!!int word`
        raise yaml.YAMLError(f"a value does not fit its tag: {error}") from None


def _check(node: yaml.Node, depth: int, count: int) -> int:
    """Count this node and those below it, and refuse what compose() refuses."""
    if node.tag not in _PLAIN:
        raise _problem(node, f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not supported")
    if depth > _DEEPEST:
        raise _problem(node, f"nested more than {_DEEPEST} levels deep, or an alias that contains itself")
    if count > _LARGEST:
        raise _problem(node, f"more than {_LARGEST:,} values, aliases written out")
    count += 1
    if isinstance(node, yaml.ScalarNode):
        if found := _CONTROL.search(node.value):
            raise _problem(node, f"the character U+{ord(found[0]):04X} is not allowed")
        if node.tag == _FLOAT and not _finite(node):
            raise _problem(node, f"not a finite number: {node.value[:40]}")
        return count
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            count = _check(part, depth + 1, count)
    return count


def _finite(node: yaml.ScalarNode) -> bool:
    try:
        return math.isfinite(_Loader("").construct_yaml_float(node))
    except ValueError:  # `!!float word`, which construct() refuses
        return True


def _problem(node: yaml.Node, text: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
