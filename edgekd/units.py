"""Quantities with their unit, as every table, page and message writes them."""

from __future__ import annotations

# From here on a fraction of samples has two decimals in per cent.
MANY_SAMPLES = 5000
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: int) -> str:
    """Bytes in decimal units and three significant figures: 224 B, 26.4 kB, 758 kB, 2.79 MB, 1.20 GB."""
    for limit, unit in _BYTES:
        if count >= limit * 0.9995:
            return f"{significant(count / limit)} {unit}"
    return f"{count} B"


def significant(value: float) -> str:
    """Three significant figures without an exponent: 0.312, 3.12, 31.2, 1,234."""
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 0.9995 else 3
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.{digits}f}"


def times(ratio: float) -> str:
    """A ratio of at least one: 14×, 2.3×, 1.08×."""
    digits = 0 if ratio >= 9.95 else 1 if ratio >= 1.15 else 2
    return f"{ratio:.{digits}f}×"


def points(difference: float, samples: int = 0) -> str:
    """A difference of two fractions in percentage points, with its sign; with two decimals from 5,000 samples on."""
    text = f"{abs(difference) * 100:.{2 if samples >= MANY_SAMPLES else 1}f}"
    sign = "±" if float(text) == 0.0 else "+" if difference > 0 else "−"
    return f"{sign}{text} points"


def lost(difference: float) -> str:
    """What is lost, a fraction, in percentage points and in words: "loses 0.2"; below zero it is "gains 0.5"."""
    text = f"{abs(difference) * 100:.1f}"
    return f"{'gains' if difference < 0 and float(text) != 0.0 else 'loses'} {text}"
