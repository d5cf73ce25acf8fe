"""Numbers formatted for people: three significant figures, a unit, and a non-breaking space."""

from __future__ import annotations

from edgekd import units
from edgekd.units import MANY_SAMPLES, times
from edgekd.units import significant as plain

_SPACE = "\u00a0"

__all__ = ["amount", "milliseconds", "ordinal", "percent", "plain", "points", "scientific", "seconds", "size", "times"]


def percent(share: float, samples: int = 0) -> str:
    """A fraction as "97.2 %"; with two decimals if there are enough samples for that precision."""
    digits = 2 if samples >= MANY_SAMPLES else 1
    text = f"{share * 100:.{digits}f}"
    if share < 1.0 and float(text) == 100.0:
        return f">{_SPACE}{100 - 10**-digits:.{digits}f}{_SPACE}%"
    return f"{text}{_SPACE}%"


def points(difference: float, samples: int = 0) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return units.points(difference, samples).replace(" ", _SPACE)


def milliseconds(value: float) -> str:
    return f"{plain(value)}{_SPACE}ms"


def size(count: int) -> str:
    """Bytes, as edgekd.units.size()."""
    return units.size(count).replace(" ", _SPACE)


def amount(count: int) -> str:
    """A count with a unit prefix: 11.2 M, 272 k, 360."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit * 0.9995:
            return f"{plain(count / limit)}{_SPACE}{unit}"
    return str(count)


def seconds(value: float) -> str:
    """A duration: 0.4 s, 42 s, 3 min 12 s, 1 h 04 min."""
    if value < 9.95:
        return f"{value:.1f}{_SPACE}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}{_SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60:02}{_SPACE}s"
    return f"{whole // 3600}{_SPACE}h {whole % 3600 // 60:02}{_SPACE}min"


def ordinal(count: int) -> str:
    """1st, 2nd, 3rd, 4th, … 11th."""
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"


def scientific(value: float) -> str:
    """A small difference: 0, 0.0123, 3.1e-06."""
    return "0" if value == 0 else f"{value:.3g}" if value >= 1e-3 else f"{value:.1e}"
