"""Numbers in a recipe: each must be one that the networks can compute with, which is in single precision."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.recipe.yaml_lines import Location

# The largest number and the smallest normal one of float32; below it precision is lost, down to zero.
_LARGEST, _SMALLEST = 3.4028234663852886e38, 1.1754943508222875e-38


def beyond_float32(value: object, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Every number in a recipe's value that float32 cannot hold, at any depth: its place, and what is wrong with it."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from beyond_float32(each, (*location, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from beyond_float32(each, (*location, index))
    elif isinstance(value, (int, float)) and value and not _SMALLEST <= abs(value) <= _LARGEST:
        shown = f"{value:g}" if isinstance(value, float) else f"a number of {len(str(abs(value)))} digits"
        yield (
            location,
            f"must be a number that float32 holds: 0, or {_SMALLEST:.2g} to {_LARGEST:.2g} in size; found: {shown}",
        )
