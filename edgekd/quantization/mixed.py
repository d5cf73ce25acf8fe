"""The fewest operations that have to stay in float so that int8 loses no more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A network of which more stays in float is hardly an int8 network: it has as many conversions as fused layers.
MOST = 0.5
# Of the operations that were found, so many are tried again in int8.
_RETRIED = 16


@dataclass(frozen=True)
class Choice:
    """What stays in float.

    Attributes:
        keep: paths, the most sensitive first.
        drop: what the network then loses.
        met: whether that is allowed; if not, no set that was tried loses less.
        tried: how many sets were measured.
    """

    keep: tuple[str, ...]
    drop: float
    met: bool
    tried: int


def fewest(ranked: Sequence[str], drop: Callable[[tuple[str, ...]], float], allowed: float, most: int) -> Choice:
    """The smallest set that meets a bound: a head of the ranking, without those in it that it can do without.

    Its length is found by doubling and bisection. Then each operation is returned to int8, the least sensitive first,
    where the bound is met without it.

    Args:
        ranked: paths of the operations, the most sensitive first.
        drop: what the network loses where these stay in float.
        allowed: the largest drop.
        most: how many may stay in float.
    """
    measured: dict[tuple[str, ...], float] = {}

    def meets(keep: tuple[str, ...]) -> bool:
        if keep not in measured:
            measured[keep] = drop(keep)
        return measured[keep] <= allowed

    most = min(most, len(ranked))
    low, high = 0, min(1, most)
    while high and not meets(tuple(ranked[:high])) and high < most:
        low, high = high, min(2 * high, most)
    if not high or not meets(tuple(ranked[:high])):
        keep = min(measured, key=lambda each: (measured[each], len(each)), default=())
        return Choice(keep, measured.get(keep, float("inf")), met=False, tried=len(measured))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(tuple(ranked[:middle])) else (middle, high)
    keep = tuple(ranked[:high])
    for name in keep[: -_RETRIED - 1 : -1]:
        without = tuple(each for each in keep if each != name)
        if without and meets(without):
            keep = without
    return Choice(keep, measured[keep], met=True, tried=len(measured))


def with_blocks(keep: Sequence[str], operations: Sequence[str], most: int) -> tuple[str, ...]:
    """The blocks around operations, whole: fewer conversions between int8 and float, which may be faster.

    A block is the nearest module around an operation that holds others too.

    Args:
        keep: paths.
        operations: the paths of all operations, in the graph's order.
        most: a block of more operations is not taken; the operation stays alone.

    Returns:
        Paths in the graph's order.
    """
    found = set(keep)
    for name in keep:
        parts = name.split(".")
        for length in range(len(parts) - 1, 0, -1):
            inside = [each for each in operations if each.startswith(".".join(parts[:length]) + ".")]
            if len(inside) > 1:
                found.update(inside if len(inside) <= most else ())
                break
    return tuple(each for each in operations if each in found)
