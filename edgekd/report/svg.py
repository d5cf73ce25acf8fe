"""SVG for charts: elements, scales, ticks, and placement of labels without overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

CHARACTER = 7.0
LINE = 16.0

_CROSS = [(0.0, -0.5), (0.7, -1.2), (1.2, -0.7), (0.5, 0.0), (1.2, 0.7), (0.7, 1.2)]
_CROSS += [(-right, -down) for right, down in _CROSS]
_STAR = [
    (reach * math.sin(turn * math.pi / 5), -reach * math.cos(turn * math.pi / 5))
    for turn, reach in enumerate((1.45, 0.65) * 5)
]
# Each shape's corners around its centre, in radii.
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle-down": [(0.0, 1.2), (1.2, -0.9), (-1.2, -0.9)],
    "diamond": [(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)],
    "triangle-up": [(0.0, -1.2), (1.2, 0.9), (-1.2, 0.9)],
    "cross": _CROSS,
    "star": _STAR,
}


@dataclass(frozen=True)
class Mark:
    """The mark of a network in charts and tables; its colour is a class of the page's style sheet."""

    shape: str
    colour: str

    def __str__(self) -> str:
        return self.colour


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] of the data to [start, end] of the drawing, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int) -> list[float]:
        """About `wanted` round values within the scale."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                marks = [digit * 10.0**decade for decade in decades for digit in digits]
                inside = [mark for mark in marks if self.low <= mark <= self.high]
                if len(inside) <= wanted + 1:
                    return inside
            return inside
        step = nice_step((self.high - self.low) / wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Box:
    """An occupied rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def text_width(text: str) -> float:
    """An upper bound for the width of 12 px text in common system fonts."""
    return len(text) * CHARACTER


def place(labels: Sequence[str], anchors: Sequence[tuple[float, float]], area: Box, *, gap: float = 10.0) -> list[Box]:
    """A free box for every label, as close to its anchor as possible, without covering markers.

    `area` must be high enough for all labels one below another; then a place is always found.
    """
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y in anchors]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(labels)), key=lambda i: (anchors[i][1], anchors[i][0])):
        x, y = anchors[index]
        boxes = [box for box in _candidates(text_width(labels[index]), x, y, area, gap)]
        box = next((box for box in boxes if not any(box.meets(other) for other in taken)), boxes[0])
        taken.append(box)
        placed[index] = box
    return [placed[index] for index in range(len(labels))]


def _candidates(width: float, x: float, y: float, area: Box, gap: float) -> list[Box]:
    """Boxes beside the anchor, then above and below it, at increasing distance; all inside the area."""
    lefts = (x + gap, x - gap - width, x - width / 2)
    found: list[tuple[float, Box]] = []
    for rank, wish in enumerate(lefts):
        left = min(max(wish, area.left), area.right - width)
        moved = abs(left - wish)
        for step in range(math.ceil((area.bottom - area.top) / 4)):
            for top in (y - LINE / 2 - 4 * step, y - LINE / 2 + 4 * step):
                if area.top <= top and top + LINE <= area.bottom:
                    found.append((4 * step + moved + rank, Box(left, top, left + width, top + LINE)))
    return [box for _, box in sorted(found, key=lambda pair: pair[0])]


def spread(wishes: Sequence[float], low: float, high: float, distance: float = LINE) -> list[float]:
    """Positions close to the wishes, in the same order, at least `distance` apart, between low and high."""
    order = sorted(range(len(wishes)), key=lambda index: wishes[index])
    positions = [0.0] * len(wishes)
    floor = low
    for index in order:
        positions[index] = floor = max(wishes[index], floor)
        floor += distance
    ceiling = high
    for index in reversed(order):
        positions[index] = ceiling = min(positions[index], ceiling)
        ceiling -= distance
    return positions


def elide(text: str, width: float) -> str:
    """`text`, with its middle elided if it is wider than `width` pixels; the variant at its end stays readable."""
    room = max(3, int(width / CHARACTER))
    if len(text) <= room:
        return text
    tail = (room - 1) // 2
    return f"{text[: room - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element; text and attributes are escaped, and `_` in an attribute's name becomes `-`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute_text(value))
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join(children))


def text(content: str, x: float, y: float, *, anchor: str = "start", class_: str = "label") -> Markup:
    return tag("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def marker(mark: Mark, x: float, y: float, *, hollow: bool = False, radius: float = 5.5) -> Markup:
    """A network's mark, distinguished by shape and colour."""
    class_ = f"mark {mark}{' hollow' if hollow else ''}"
    if mark.shape == "disc":
        return tag("circle", cx=x, cy=y, r=radius, class_=class_)
    corners = [(x + radius * right, y + radius * down) for right, down in _CORNERS[mark.shape]]
    return tag("path", d=path(corners) + "Z", class_=class_)


def inline(mark: Mark) -> Markup:
    """A mark inside text."""
    box = {"viewBox": "-9 -9 18 18", "aria_hidden": "true", "class_": "key"}
    return tag("svg", marker(mark, 0.0, 0.0, radius=6.0), **box)


def path(points: Iterable[tuple[float, float]]) -> str:
    """Straight lines through the points, as the `d` of a path."""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def drawing(title: str, description: str, width: float, height: float, *children: str) -> Markup:
    """The complete drawing, with a title and a description for screen readers."""
    head = (tag("title", title), tag("desc", description))
    return tag(
        "svg", *head, *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=f"{title}. {description}"
    )


def _attribute_text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
