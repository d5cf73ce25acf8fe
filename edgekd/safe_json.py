"""JSON from anyone: UTF-8, of limited depth, with finite numbers and text that can be written again.

Python's parser accepts more: NaN, 1e999 (as infinity), whole numbers beyond all floats, and halves of surrogate pairs.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_DEEPEST = 50
_LARGEST = 2**63
_SHOWN = 20
_HALF = re.compile("[\ud800-\udfff]")


def loads(content: bytes) -> Any:
    """The value of a JSON file's content.

    Raises:
        ValueError: it is not JSON, or holds what is not accepted here; the message names the place.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    _check(value, "", 0)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: object, place: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        for name, each in value.items():
            _check(name, place, depth)
            _check(each, f"{place}.{name}" if place else name, depth + 1)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _check(each, f"{place}[{index}]", depth + 1)
    elif (isinstance(value, float) and not math.isfinite(value)) or (
        isinstance(value, int) and not -_LARGEST <= value < _LARGEST
    ):
        raise ValueError(f"{place or 'the value'} is too large a number")
    elif isinstance(value, str) and _HALF.search(value):
        raise ValueError(f"{place or 'the value'} is not text: {ascii(value[:_SHOWN])}")
