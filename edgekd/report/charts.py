"""The page's charts: pure functions from numbers to inline SVG, coloured by the page's style sheet.

Every chart takes its width in pixels, because the page has one version for a desktop and one for a phone.

Drawn here instead of by a library: a scatter of nine models takes 4.6 KB in the page's own colours, dark mode included,
and no labels overlap; matplotlib 3.11 gives 22 KB, fixed colours and 3 overlaps (5 at phone width), pygal 3.1 16 KB
with its own style sheet, a script and 3 overlaps; matplotlib with dependencies adds 75 MB, vl-convert 34 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgekd.bench.measurement import Provenance
from edgekd.report import figures, svg
from edgekd.report.svg import Box, Mark, Scale, line, tag, text
from edgekd.report.words import ACCURACY, Words
from edgekd.wording import counted

# A phone's page is 328 to 358 px wide: what is drawn for 320 is never drawn smaller there.
WIDE, NARROW = 960.0, 320.0
_KEY_ROW = 22.0
_LOG_FROM = 6.0
_DOTS = 99
_GOLDEN = 0.618034
# Behind a name whose latency is not that of hardware; its mark is hollow.
_NOTES: dict[Provenance, str] = {"measured": "", "estimated": " (est.)", "emulated": " (emulated)"}


@dataclass(frozen=True)
class Point:
    """A model's latency in ms, and its accuracy with the 95 % interval as fractions."""

    label: str
    mark: Mark
    latency_ms: float
    accuracy: float
    low: float
    high: float
    provenance: Provenance = "measured"


@dataclass(frozen=True)
class Strip:
    """A model's latencies in ms; `samples` may be empty."""

    label: str
    mark: Mark
    samples: tuple[float, ...]
    p50: float
    p90: float
    p99: float
    provenance: Provenance = "measured"


@dataclass(frozen=True)
class Curve:
    """(epoch, validation accuracy) of one training."""

    label: str
    mark: Mark
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Bar:
    label: str
    mark: Mark
    size_bytes: int


def scatter(points: Sequence[Point], width: float, *, words: Words = ACCURACY) -> Markup:
    """Accuracy against latency; the bar through a point is its 95 % interval.

    On a phone, where names would cover the points, these have numbers, and the names stand below.
    """
    wide = width > 600
    names = [_named(point.label, point.provenance, 240.0 if wide else width - 56) for point in points]
    labels = names if wide else [str(number) for number in range(1, len(points) + 1)]
    height = (420.0 if wide else 340.0) + max(0, len(points) - 6) * (1.5 if wide else 0.5) * svg.LINE
    area = Box(56, 34, width - 12, height - 52)
    latencies = [point.latency_ms for point in points]
    x = _latency_scale(min(latencies), max(latencies), area.left, area.right - 16)
    y = _accuracy_scale(min(p.low for p in points), max(p.high for p in points), area)
    anchors = [(x(point.latency_ms), y(point.accuracy)) for point in points]
    boxes = svg.place(labels, anchors, Box(area.left + 4, area.top, width - 2, area.bottom - 4))
    drawn = [
        line(x(point.latency_ms), y(point.low), x(point.latency_ms), y(point.high), f"whisker {point.mark}")
        for point in points
    ]
    for point, label, anchor, box in zip(points, labels, anchors, boxes, strict=True):
        drawn += [_leader(anchor, box), svg.marker(point.mark, *anchor, hollow=point.provenance != "measured")]
        drawn.append(text(label, box.left, box.top + 12, class_="label halo" if wide else "value halo"))
    axes = [*_rows(y, area), *_columns(x, area, 8 if wide else 4)]
    hint = text(f"↖ faster and {words.better}", area.left, 18, class_="hint")
    unit = text("latency in ms, one call (p50)", area.right, height - 8, anchor="end", class_="axis")
    key = [] if wide else _key(points, names, height + 16)
    description = "; ".join(
        f"{p.label}: {figures.percent(p.accuracy)} at {figures.milliseconds(p.latency_ms)}" for p in points
    )
    title, below = f"{words.title} against latency", 0.0 if wide else 16 + _KEY_ROW * len(points)
    return svg.drawing(title, description, width, height + below, *axes, hint, unit, *drawn, *key)


def strips(rows: Sequence[Strip], width: float) -> Markup:
    """One line per model: a dot per percent of the runs, with marks at p50, p90 and p99."""
    gutter, step = _gutter(width, [row.label for row in rows]), 44.0 if width > 600 else 62.0
    top, bottom = 14.0, 14.0 + step * len(rows)
    low = min(min((s for s in row.samples if s > 0), default=row.p50) for row in rows)
    x = _latency_scale(low, max(row.p99 for row in rows), gutter + 8, width - 16)
    area = Box(gutter + 8, top, width - 16, bottom)
    drawn: list[Markup] = []
    for index, row in enumerate(rows):
        y = top + step * (index + 1) - 18
        drawn += _row_label(row.label, y, gutter, width, row.provenance)
        drawn.append(_quantile_dots(row, x, y))
        drawn.append(line(x(row.p50), y, x(row.p99), y, f"span {row.mark}"))
        drawn.append(line(x(row.p99), y - 7, x(row.p99), y + 7, f"span {row.mark}"))
        drawn.append(line(x(row.p90), y - 5, x(row.p90), y + 5, f"span {row.mark}"))
        drawn.append(svg.marker(row.mark, x(row.p50), y, hollow=row.provenance != "measured", radius=5))
    unit = text("latency in ms, one call", width - 16, bottom + 38, anchor="end", class_="axis")
    description = "; ".join(
        f"{r.label}: p50 {figures.plain(r.p50)}, p90 {figures.plain(r.p90)}, p99 {figures.plain(r.p99)} ms"
        for r in rows
    )
    columns = _columns(x, area, 8 if width > 600 else 4)
    return svg.drawing("Latency distribution", description, width, bottom + 46, *columns, unit, *drawn)


def curves(series: Sequence[Curve], width: float, *, words: Words = ACCURACY) -> Markup:
    """Validation accuracy by epoch; the final values are at the right, each with its mark."""
    columns = 3 if width > 600 else 1
    legend = 22.0 * -(-len(series) // columns)
    height = legend + 300.0
    area = Box(56, legend + 14, width - 84, height - 46)
    values = [value for curve in series for _, value in curve.points]
    epochs = [epoch for curve in series for epoch, _ in curve.points]
    x = Scale(min(epochs), max(max(epochs), min(epochs) + 1), area.left + 8, area.right - 8)
    y = _accuracy_scale(min(values), max(values), area)
    drawn = [*_rows(y, area), *_epochs(x, area, height)]
    ends = svg.spread([y(curve.points[-1][1]) for curve in series], area.top, area.bottom)
    for index, (curve, end) in enumerate(zip(series, ends, strict=True)):
        drawn += _legend(curve, index, columns, width)
        places = [(x(epoch), y(value)) for epoch, value in curve.points]
        drawn.append(tag("path", d=svg.path(places), class_=f"curve {curve.mark}"))
        drawn.append(svg.marker(curve.mark, *places[-1], radius=4.5))
        drawn.append(svg.marker(curve.mark, area.right + 14, end, radius=4.5))
        drawn.append(text(figures.percent(curve.points[-1][1]), area.right + 24, end + 4, class_="value"))
    description = "; ".join(
        f"{c.label}: {figures.percent(c.points[-1][1])} after {counted(c.points[-1][0], 'epoch')}" for c in series
    )
    return svg.drawing(f"{words.title} in validation by epoch", description, width, height, *drawn)


def bars(rows: Sequence[Bar], width: float) -> Markup:
    """File sizes, on an axis from zero."""
    gutter, step = _gutter(width, [row.label for row in rows]), 34.0 if width > 600 else 48.0
    most = max(1, max(row.size_bytes for row in rows))
    x = Scale(0, most, gutter + 8, width - 80)
    drawn: list[Markup] = []
    for index, row in enumerate(rows):
        y = step * (index + 1) - 16
        length = max(2.0, x(row.size_bytes) - x(0))
        drawn += _row_label(row.label, y, gutter, width, mark=row.mark)
        drawn.append(tag("rect", x=x(0), y=y - 7, width=length, height=14.0, rx=2.0, class_=f"bar {row.mark}"))
        drawn.append(text(figures.size(row.size_bytes), x(0) + length + 8, y + 4, class_="value"))
    description = "; ".join(f"{row.label}: {figures.size(row.size_bytes)}" for row in rows)
    return svg.drawing("File size", description, width, step * len(rows) + 6, *drawn)


def _latency_scale(low: float, high: float, start: float, end: float) -> Scale:
    """A linear scale from zero, or a logarithmic one if the slowest is many times the fastest."""
    if high / low > _LOG_FROM:
        return Scale(low / 1.25, high * 1.1, start, end, log=True)
    return Scale(0.0, high * 1.1, start, end)


def _accuracy_scale(low: float, high: float, area: Box) -> Scale:
    room = max(0.01, (high - low) * 0.08)
    return Scale(max(0.0, low - room), min(1.0, high + room), area.bottom, area.top)


def _rows(y: Scale, area: Box) -> list[Markup]:
    ticks = y.ticks(5)
    digits = 1 if any(abs(tick * 100 - round(tick * 100)) > 1e-6 for tick in ticks) else 0
    drawn: list[Markup] = []
    for tick in ticks:
        drawn.append(line(area.left, y(tick), area.right, y(tick), "grid"))
        drawn.append(text(f"{tick * 100:.{digits}f} %", area.left - 8, y(tick) + 4, anchor="end", class_="axis"))
    return drawn


def _columns(x: Scale, area: Box, wanted: int) -> list[Markup]:
    drawn: list[Markup] = []
    for tick in x.ticks(wanted):
        drawn.append(line(x(tick), area.top, x(tick), area.bottom, "grid"))
        drawn.append(text(f"{tick:g}", x(tick), area.bottom + 18, anchor="middle", class_="axis"))
    return drawn


def _epochs(x: Scale, area: Box, height: float) -> list[Markup]:
    ticks = [tick for tick in x.ticks(6) if tick == round(tick)]
    drawn = [text(f"{tick:g}", x(tick), area.bottom + 18, anchor="middle", class_="axis") for tick in ticks]
    return [*drawn, text("epoch", area.right, height - 8, anchor="end", class_="axis")]


def _key(points: Sequence[Point], names: Sequence[str], top: float) -> list[Markup]:
    """The names of numbered points, one per line."""
    drawn: list[Markup] = []
    for number, (point, name) in enumerate(zip(points, names, strict=True), start=1):
        y = top + _KEY_ROW * (number - 0.5)
        drawn.append(text(str(number), 22, y + 4, anchor="end", class_="value"))
        drawn += [svg.marker(point.mark, 36, y, hollow=point.provenance != "measured"), text(name, 50, y + 4)]
    return drawn


def _leader(anchor: tuple[float, float], box: Box) -> Markup:
    """A thin line to a label that is not beside its mark."""
    x = min(max(anchor[0], box.left), box.right)
    y = min(max(anchor[1], box.top + 3), box.bottom - 3)
    if abs(x - anchor[0]) + abs(y - anchor[1]) < 16:
        return Markup("")
    return line(*anchor, x, y, "leader")


def _quantile_dots(row: Strip, x: Scale, y: float) -> Markup:
    """One dot per percent of the runs up to p99, spread across the strip in a fixed pattern."""
    ranked = sorted(sample for sample in row.samples if 0 < sample <= row.p99)
    count = min(_DOTS, len(ranked))
    picked = [ranked[(2 * rank + 1) * len(ranked) // (2 * count)] for rank in range(count)]
    heights = [y - 11 + 22 * (_GOLDEN * rank % 1) for rank in range(count)]
    d = "".join(f"M{x(sample):.1f},{height:.1f}h0" for sample, height in zip(picked, heights, strict=True))
    return tag("path", d=d, class_=f"dots {row.mark}") if d else Markup("")


def _gutter(width: float, labels: Sequence[str]) -> float:
    """The width for labels left of the rows, at most a third; on a phone the labels are above the rows."""
    if width <= 600:
        return 0.0
    longest = max(svg.text_width(label) for label in labels)
    return min(max(longest + 60.0, 120.0), width / 3)


def _row_label(
    label: str, y: float, gutter: float, width: float, provenance: Provenance = "measured", mark: Mark | None = None
) -> list[Markup]:
    """A row's label, and its mark if the row itself does not show it."""
    room = 18.0 if mark else 0.0
    if gutter:
        name = text(_named(label, provenance, gutter - 8 - room), gutter - 6 - room, y + 4, anchor="end")
        return [name, *([svg.marker(mark, gutter - 10, y, radius=5)] if mark else [])]
    name = text(_named(label, provenance, width - 16 - room), 8 + room, y - 16)
    return [name, *([svg.marker(mark, 14, y - 20, radius=5)] if mark else [])]


def _legend(curve: Curve, index: int, columns: int, width: float) -> list[Markup]:
    x, y = 8 + index % columns * (width / columns), 12 + index // columns * 22.0
    key = line(x, y, x + 30, y, f"curve {curve.mark}")
    label = svg.elide(curve.label, width / columns - 60)
    return [key, svg.marker(curve.mark, x + 15, y, radius=4.5), text(label, x + 38, y + 4)]


def _named(label: str, provenance: Provenance, room: float) -> str:
    note = _NOTES[provenance]
    return svg.elide(label, room - svg.text_width(note)) + note
