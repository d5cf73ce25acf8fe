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
    area = Box(56, 34, width - 12, 234 if width > 600 else 204)
    y = Scale(0, max(1, max(layer.before for layer in layers)) * 1.05, area.bottom, area.top)
    slot = (area.right - area.left) / len(layers)
    wide = min(28.0, slot * 0.72)
    drawn: list[Markup] = []
    for tick in y.ticks(4):
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick:,.0f}", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    for index, layer in enumerate(layers):
        left = area.left + slot * (index + 0.5) - wide / 2
        name = tag("title", f"{layer.label}: {layer.before:,} → {layer.after:,}")
        columns = [_column(left, wide, y(n), area.bottom, c) for n, c in ((layer.before, "was"), (layer.after, "bar"))]
        drawn.append(tag("g", name, *columns, class_="pruned"))
    hint = text("output channels", area.left, 18, class_="hint")
    axis = text("layers, from input to output", area.right, area.bottom + 20, anchor="end", class_="axis")
    before, after = sum(layer.before for layer in layers), sum(layer.after for layer in layers)
    description = f"{counted(len(layers), 'layer')}, {counted(before, 'output channel')} before and {after:,} after"
    return svg.drawing(
        "Channels by layer, before and after pruning", description, width, area.bottom + 30, *drawn, hint, axis
    )


def sensitivities(parts: Sequence[Sensitivity], width: float, *, unit: str) -> Markup:
    """One column per part, in the network's order: what is lost with the most channels pale, with the fewest solid."""
    area = Box(56, 34, width - 12, 234 if width > 600 else 204)
    most = max(0.1, *(max(part.lost) for part in parts))
    y = Scale(0, most * 1.05, area.bottom, area.top)
    slot = (area.right - area.left) / len(parts)
    wide = min(28.0, slot * 0.72)
    drawn: list[Markup] = []
    for tick in y.ticks(4):
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick:,.3g}", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    for index, part in enumerate(parts):
        left = area.left + slot * (index + 0.5) - wide / 2
        name = tag("title", f"{part.label}: {', '.join(f'{lost:.3g}' for lost in part.lost)} {unit}")
        heights = [y(max(0.0, lost)) for lost in reversed(part.lost)]
        columns = [
            _column(left, wide, top, area.bottom, class_)
            for top, class_ in zip(heights, ("was", "was", "bar"), strict=True)
        ]
        drawn.append(tag("g", name, *columns, class_="pruned"))
    hint = text(unit, area.left, 18, class_="hint")
    axis = text("parts, from input to output", area.right, area.bottom + 20, anchor="end", class_="axis")
    worst = max(parts, key=lambda part: part.lost[-1])
    description = f"{counted(len(parts), 'part')}; {worst.label} costs the most: {worst.lost[-1]:.3g} {unit}"
    return svg.drawing("What cutting each part alone costs", description, width, area.bottom + 30, *drawn, hint, axis)


def _column(left: float, width: float, top: float, bottom: float, class_: str) -> Markup:
    return tag("rect", x=left, y=top, width=width, height=bottom - top, class_=class_)
