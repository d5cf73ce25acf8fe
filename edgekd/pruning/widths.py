"""How far each part of a network can be narrowed, and the shapes of its parameters when it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.pruning.flow import CONSTANT, Flow, Labels


@dataclass(frozen=True)
class Part:
    """Channels whose number changes in proportion, e.g. those of all layers that add to the same tensor.

    Attributes:
        channels: the channels.
        layers: the parameters that begin them: the weights whose outputs they are, with how many outputs these have.
        unit: every width of this part is a multiple of its unit-th part: widths are n / unit of what they were.
    """

    channels: frozenset[int]
    layers: Mapping[str, int]
    unit: int

    def counts(self, multiple: int) -> list[int]:
        """The possible numbers of units, ascending up to all of them; each width is a multiple of `multiple`."""
        step = 1
        for width in self.layers.values():
            per_unit = width // self.unit
            step = math.lcm(step, multiple // math.gcd(multiple, per_unit))
        return [*range(step, self.unit, step), self.unit]


def parts_of(flow: Flow, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Part, ...]:
    """The parts that can be narrowed, in the order in which the network runs them.

    Args:
        flow: the network's channels.
        shapes: of its parameters.
    """
    groups = _Groups()
    begun = _begun(flow, shapes)
    for labels in begun.values():
        groups.join(labels)
    for tied in flow.tied:
        groups.join(np.array(sorted(tied)))
    kept = {groups.root(label) for label in flow.kept}
    members: dict[int, dict[str, Labels]] = {}
    for name, labels in begun.items():
        members.setdefault(groups.root(int(labels[0])), {})[name] = labels
    return tuple(part for root, layers in members.items() if root not in kept and (part := _part(layers)) is not None)


def narrowed_shapes(
    flow: Flow, parts: Sequence[Part], units: Sequence[int], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that change where parts are narrowed.

    Args:
        flow: the network's channels.
        parts: what can be narrowed.
        units: how many units each of the parts keeps.
        shapes: of the network's parameters and buffers.
    """
    remaining = {
        channel: (count, part.unit) for part, count in zip(parts, units, strict=True) for channel in part.channels
    }
    found = {name: list(shape) for name, shape in shapes.items()}
    for site, labels in flow.sites.items():
        found[site.tensor][site.dim] = _width(labels, remaining)
    return {name: tuple(shape) for name, shape in found.items() if tuple(shape) != tuple(shapes[name])}


def _width(labels: Labels, remaining: Mapping[int, tuple[int, int]]) -> int:
    counts = Counter(remaining.get(label, (1, 1)) for label in labels.tolist())
    return sum(number * count // unit for (count, unit), number in counts.items())


def _begun(flow: Flow, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Labels]:
    """The channels that each weight begins: those of its outputs."""
    return {
        site.tensor: labels
        for site, labels in flow.sites.items()
        if site.dim == 0 and len(shapes[site.tensor]) > 1 and (labels != CONSTANT).all()
    }


def _part(layers: Mapping[str, Labels]) -> Part | None:
    channels = frozenset(int(label) for labels in layers.values() for label in labels)
    widths = {name: len(labels) for name, labels in layers.items()}
    unit = math.gcd(*widths.values(), *(len(set(labels.tolist())) for labels in layers.values()))
    return Part(channels, widths, unit) if unit > 1 else None


class _Groups:
    """Sets of labels that grow together."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}

    def root(self, label: int) -> int:
        self._parents.setdefault(label, label)
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def join(self, labels: Labels) -> None:
        first = self.root(int(labels[0]))
        for label in labels.tolist():
            self._parents[self.root(label)] = first
