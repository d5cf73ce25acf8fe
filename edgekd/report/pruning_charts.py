"""The charts of pruning: what each layer lost, and what cutting each part alone costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgekd.report import svg
from edgekd.report.svg import Box, Scale, line, tag, text
from edgekd.wording import counted


@dataclass(frozen=True)
class Layer:
    """A layer's output channels before and after pruning."""

    label: str
    before: int
    after: int


@dataclass(frozen=True)
class Sensitivity:
    """What is lost where a part alone loses 25, 50 and 75 % of its channels.

    Attributes:
        label: the part's first layer.
        lost: points of accuracy, or the answers' error in %, ascending with the channels; may be below 0.
    """

    label: str
    lost: tuple[float, ...]


def widths(layers: Sequence[Layer], width: float) -> Markup:
    """One column per layer, in the network's order: its channels before pruning (pale) and after (solid)."""
    columns = [
        Column(f"{layer.label}: {layer.before:,} → {layer.after:,}", (layer.before, layer.after), ("was", "bar"))
        for layer in layers
    ]
    before, after = sum(layer.before for layer in layers), sum(layer.after for layer in layers)
    description = f"{counted(len(layers), 'layer')}, {counted(before, 'output channel')} before and {after:,} after"
    words = Words("Channels by layer, before and after pruning", description, "output channels", "layers")
    return in_columns(columns, max(1, max(layer.before for layer in layers)), width, words, ",.0f")


def sensitivities(parts: Sequence[Sensitivity], width: float, *, unit: str) -> Markup:
    """One column per part, in the network's order: what is lost with the most channels pale, with the fewest solid."""
    columns = [
        Column(
            f"{part.label}: {', '.join(f'{lost:.3g}' for lost in part.lost)} {unit}",
            tuple(max(0.0, lost) for lost in reversed(part.lost)),
            ("was", "was", "bar"),
        )
        for part in parts
    ]
    worst = max(parts, key=lambda part: part.lost[-1])
    description = f"{counted(len(parts), 'part')}; {worst.label} costs the most: {worst.lost[-1]:.3g} {unit}"
    words = Words("What cutting each part alone costs", description, unit, "parts")
    return in_columns(columns, max(0.1, *(max(part.lost) for part in parts)), width, words, ",.3g")


@dataclass(frozen=True)
class Column:
    """Heights that stand one before the other, the highest first, with their classes."""

    name: str
    heights: tuple[float, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """Of a chart: `unit` is the vertical axis', `items` what stands side by side."""

    title: str
    description: str
    unit: str
    items: str


def in_columns(columns: Sequence[Column], most: float, width: float, words: Words, form: str) -> Markup:
    area = Box(56, 34, width - 12, 234 if width > 600 else 204)
    y = Scale(0, most * 1.05, area.bottom, area.top)
    slot = (area.right - area.left) / len(columns)
    wide = min(28.0, slot * 0.72)
    drawn: list[Markup] = []
    for tick in y.ticks(4):
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick:{form}}", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    for index, column in enumerate(columns):
        left = area.left + slot * (index + 0.5) - wide / 2
        stand = [
            tag("rect", x=left, y=y(value), width=wide, height=area.bottom - y(value), class_=class_)
            for value, class_ in zip(column.heights, column.classes, strict=True)
        ]
        drawn.append(tag("g", tag("title", column.name), *stand, class_="pruned"))
    hint = text(words.unit, area.left, 18, class_="hint")
    below = f"{words.items}, from input to output"
    axis = text(below, area.right, area.bottom + 20, anchor="end", class_="axis")
    return svg.drawing(words.title, words.description, width, area.bottom + 30, *drawn, hint, axis)
