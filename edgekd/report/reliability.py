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


def reliability(levels: Sequence[Level], width: float) -> Markup:
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
    description = "; ".join(
        f"{figures.percent(each.accuracy)} of {each.count:,} images right at {figures.percent(each.confidence)}"
        for each in levels
    )
    drawn = [*_diagram(levels, upper), *_histogram(levels, lower)]
    return svg.drawing("Accuracy by confidence", description, width, lower.bottom + 46, *drawn)


def _diagram(levels: Sequence[Level], area: Box) -> list[Markup]:
    x, y = Scale(0, 1, area.left, area.right), Scale(0, 1, area.bottom, area.top)
    drawn = _axes(x, y, _TICKS, area)
    drawn.append(text("accuracy", area.left, 18, class_="hint"))
    drawn.append(line(x(0), y(0), x(1), y(1), "curve grey"))
    for each in levels:
        drawn.append(line(x(each.confidence), y(each.low), x(each.confidence), y(each.high), f"whisker {each.mark}"))
    drawn += [svg.marker(each.mark, x(each.confidence), y(each.accuracy), radius=5) for each in levels]
    return drawn


def _histogram(levels: Sequence[Level], area: Box) -> list[Markup]:
    most = max(each.share for each in levels)
    x, y = Scale(0, 1, area.left, area.right), Scale(0, most * 1.05, area.bottom, area.top)
    drawn = _axes(x, y, y.ticks(4), area)
    drawn.append(text("share of the images", area.left, area.top - 16, class_="hint"))
    for each in levels:
        left, right = x(each.number / each.of) + 1, x((each.number + 1) / each.of) - 1
        top = min(y(each.share), area.bottom - 1)
        name = tag("title", f"confidence {figures.percent(each.confidence)}: {each.count:,} images")
        bar = tag("rect", x=left, y=top, width=right - left, height=area.bottom - top, class_=f"bar {each.mark}")
        drawn.append(tag("g", name, bar))
    return drawn


def _axes(x: Scale, y: Scale, ticks: Sequence[float], area: Box) -> list[Markup]:
    drawn: list[Markup] = []
    for tick in ticks:
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick * 100:g} %", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    for tick in _TICKS:
        drawn.append(line(x(tick), area.top, x(tick), area.bottom, "grid"))
        drawn.append(text(f"{tick * 100:g} %", x(tick), area.bottom + 18, anchor="middle", class_="axis"))
    return [*drawn, text("confidence", area.right, area.bottom + 38, anchor="end", class_="axis")]
