"""How much a network's answers change where one part of it alone loses channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.pruning.flow import Flow
from edgekd.pruning.importance import Scores
from edgekd.pruning.widths import Part

SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Curve:
    """What cutting one part costs.

    Attributes:
        layers: the weights that begin the part's channels, by name.
        channels: how many they are.
        shares: fractions of the channels that were removed, ascending.
        errors: by share, the squared change of the logits over their variance, each about its image's mean.
        lost: by share, how much of the accuracy is lost, as a fraction of the images; None without labels.
    """

    layers: tuple[str, ...]
    channels: int
    shares: tuple[float, ...]
    errors: tuple[float, ...]
    lost: tuple[float, ...] | None


@dataclass(frozen=True)
class Probes:
    """Images that the network is asked about.

    Attributes:
        images: batches (B, C, H, W), normalised.
        correct: from the logits (N, K) of all of them to which answers are right; None without labels.
    """

    images: Sequence[Tensor]
    correct: Callable[[Tensor], Tensor] | None = None


def scan(
    model: nn.Module,
    flow: Flow,
    parts: Sequence[Part],
    scores: Scores,
    probes: Probes,
    *,
    shown: Callable[[int, int], None] | None = None,
) -> tuple[Curve, ...]:
    """Cut each part alone, by several fractions, and compare the answers with the whole network's.

    The least important channels are taken out by setting to zero all that computes or reads them, which is what a
    narrower network computes.

    Args:
        model: in evaluation mode; its weights are as before afterwards.
        flow: its channels.
        parts: what is cut.
        scores: the importance of the channels.
        probes: images; a hundred or two are enough.
        shown: called with the number of parts done, and of all.

    Returns:
        A curve per part, in order.
    """
    whole = _logits(model, probes)
    right = _accuracy(whole, probes)
    found = []
    for number, part in enumerate(parts):
        if shown is not None:
            shown(number, len(parts))
        ranked = sorted(part.channels, key=lambda channel: (scores.get(channel, 0.0), channel))
        errors, lost = [], []
        for share in SHARES:
            with _without(model, flow, ranked[: round(share * len(ranked))]):
                logits = _logits(model, probes)
            errors.append(_error(logits, whole))
            lost.append(right - _accuracy(logits, probes))
        labelled = probes.correct is not None
        found.append(Curve(tuple(part.layers), len(ranked), SHARES, tuple(errors), tuple(lost) if labelled else None))
    return tuple(found)


def _logits(model: nn.Module, probes: Probes) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(images) for images in probes.images]).double()


def _accuracy(logits: Tensor, probes: Probes) -> float:
    return float(probes.correct(logits).double().mean()) if probes.correct is not None else 0.0


def _error(logits: Tensor, whole: Tensor) -> float:
    variance = (whole - whole.mean(1, keepdim=True)).pow(2).sum()
    change = logits - whole
    centred = (change - change.mean(1, keepdim=True)).pow(2).sum()
    return float(centred / variance.clamp(min=torch.finfo(torch.float64).tiny))


@contextmanager
def _without(model: nn.Module, flow: Flow, channels: Sequence[int]) -> Iterator[None]:
    """The network as if it lacked these channels."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before: dict[str, Tensor] = {}
    with torch.no_grad():
        for site, labels in flow.sites.items():
            places = np.flatnonzero(np.isin(labels, channels))
            if len(places):
                tensor = tensors[site.tensor]
                before.setdefault(site.tensor, tensor.clone())
                tensor.index_fill_(site.dim, torch.from_numpy(places), 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                tensors[name].copy_(tensor)
