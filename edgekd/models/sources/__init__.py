"""Model sources, one file per source: each exports MODELS, a ModelSource."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from edgekd.models.trained_input import TrainedInput


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A source of classifiers.

    Attributes:
        names: the names of the classifiers that it can build.
        build: `(name, *, num_classes, pretrained=False, **arguments)` to a network from (B, 3, H, W) images to
            (B, num_classes) logits. `pretrained`: with the published weights, but for a last layer of another number
            of classes. Raises ModelError, TypeError or ValueError where the arguments do not fit.
        class_names: the names of the classes of a classifier's published weights, in the order of its logits; empty
            where they are not known.
        here: whether a classifier's published weights lie on this machine, so that nothing is downloaded.
        bring: how to bring a classifier's published weights to a machine without a connection, in words.
        loading: the names of arguments through which a builder reads or fetches weights; they are refused, because such
            files may be unpickled.
        published_input: what a classifier's published weights were trained with; downloads nothing.
        stem: the path of a classifier's first convolution and of the max-pool behind it, if any, which are made smaller
            for small images; None: they stay as they are.
        published_classes: for how many classes a classifier's published weights are, 0 for weights without a last
            layer; downloads nothing. Raises ValueError where there are none.
    """

    names: Callable[[], tuple[str, ...]]
    build: Callable[..., nn.Module]
    published_classes: Callable[[str], int]
    loading: frozenset[str] = frozenset()
    bring: Callable[[str], str] | None = None
    published_input: Callable[[str], TrainedInput] = lambda _: TrainedInput()
    class_names: Callable[[str], tuple[str, ...]] | None = None
    here: Callable[[str], bool] | None = None
    stem: Callable[[str], tuple[str, str | None] | None] = lambda _: None
