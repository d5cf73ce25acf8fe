"""The reliability diagram: accuracy against confidence, as inline SVG (see edgekd.report.charts)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgekd.report import figures, svg
from edgekd.report.svg import Box, Mark, Scale, line, tag, text

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Level:
    """The images whose confidence is in one bin, at least one: the means over them, and the accuracy's 95 % interval.

    Attributes:
        number, of: of the bin, from 0, and how many bins there are.
        count: of images.
        share: of all images.
    """

    mark: Mark
    number: int
    of: int
    count: int
    share: float
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Axes:
    """What the diagram is about.

    Attributes:
        x: the probability that is judged.
        y: the share that it is compared with.
        units: what is counted.
        hits: what the share means, of several units.
    """

    x: str
    y: str
    units: str
    hits: str


ANSWERS = Axes("confidence", "accuracy", "images", "right")
LABELS = Axes("probability", "share present", "labels", "present")


def reliability(levels: Sequence[Level], width: float, *, axes: Axes = ANSWERS) -> Markup:
    """Accuracy by confidence, where a calibrated model lies on the diagonal, and how many images there are for each.

    The two stand beside each other, on a phone one below the other.
    """
    wide = width > 600
    upper = Box(56, 34, width * 0.46 if wide else width - 24, 354 if wide else 290)
    lower = (
        Box(width * 0.54 + 56, upper.top, width - 24, upper.bottom)
        if wide
        else Box(56, upper.bottom + 92, width - 24, upper.bottom + 232)
    )
    shares = [(figures.percent(each.accuracy), each.count, figures.percent(each.confidence)) for each in levels]
    description = "; ".join(f"{hit} of {count:,} {axes.units} {axes.hits} at {sure}" for hit, count, sure in shares)
    drawn = [*_diagram(levels, upper, axes), *_histogram(levels, lower, axes)]
    return svg.drawing(f"{axes.y.capitalize()} by {axes.x}", description, width, lower.bottom + 46, *drawn)


def _diagram(levels: Sequence[Level], area: Box, axes: Axes) -> list[Markup]:
    x, y = Scale(0, 1, area.left, area.right), Scale(0, 1, area.bottom, area.top)
    drawn = _axes(x, y, _TICKS, area, axes)
    drawn.append(text(axes.y, area.left, 18, class_="hint"))
    drawn.append(line(x(0), y(0), x(1), y(1), "curve grey"))
    for each in levels:
        drawn.append(line(x(each.confidence), y(each.low), x(each.confidence), y(each.high), f"whisker {each.mark}"))
    drawn += [svg.marker(each.mark, x(each.confidence), y(each.accuracy), radius=5) for each in levels]
    return drawn


def _histogram(levels: Sequence[Level], area: Box, axes: Axes) -> list[Markup]:
    most = max(each.share for each in levels)
    x, y = Scale(0, 1, area.left, area.right), Scale(0, most * 1.05, area.bottom, area.top)
    drawn = _axes(x, y, y.ticks(4), area, axes)
    drawn.append(text(f"share of the {axes.units}", area.left, area.top - 16, class_="hint"))
    for each in levels:
        left, right = x(each.number / each.of) + 1, x((each.number + 1) / each.of) - 1
        top = min(y(each.share), area.bottom - 1)
        name = tag("title", f"{axes.x} {figures.percent(each.confidence)}: {each.count:,} {axes.units}")
        bar = tag("rect", x=left, y=top, width=right - left, height=area.bottom - top, class_=f"bar {each.mark}")
        drawn.append(tag("g", name, bar))
    return drawn


def _axes(x: Scale, y: Scale, ticks: Sequence[float], area: Box, axes: Axes) -> list[Markup]:
    drawn: list[Markup] = []
    for tick in ticks:
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick * 100:g} %", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    for tick in _TICKS:
        drawn.append(line(x(tick), area.top, x(tick), area.bottom, "grid"))
        drawn.append(text(f"{tick * 100:g} %", x(tick), area.bottom + 18, anchor="middle", class_="axis"))
    return [*drawn, text(axes.x, area.right, area.bottom + 38, anchor="end", class_="axis")]
