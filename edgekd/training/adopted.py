"""Why a trained network that is used as it is may answer badly: it learned nothing, or it expects other inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Loader
from edgekd.errors import ModelError
from edgekd.runtime.multilabel import MultilabelOutputs
from edgekd.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD
from edgekd.runtime.statistics import Outputs, wilson
from edgekd.wording import counted

_IMAGES = 512
# Below this accuracy other explanations are tried, which takes a few passes over the images.
_DOUBTFUL = 0.5
_Channels = tuple[float, ...]
# Normalisations in common use: ImageNet's, to -1 … 1, none, CIFAR-10's.
_NORMALISATIONS: tuple[tuple[_Channels, _Channels], ...] = (
    (IMAGENET_MEAN, IMAGENET_STD),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)


def warnings_of(network: nn.Module, data: Dataset, loader: Loader, *, section: str | None) -> list[str]:
    """What looks wrong with a network that was trained elsewhere, and what would explain it.

    Args:
        network: in eval mode, on the loader's device.
        data: the data set.
        loader: of its validation images.
        section: of the recipe, in which the normalisation is set; None where it is known to be right.

    Raises:
        ModelError: it answers with probabilities for images of several labels.
    """
    if data.multilabel:  # the explanations below are about one answer per image
        return _of_sets(network, data, loader)
    own = data.details.preprocessing
    seen = _outputs(network, data, loader, own.mean, own.std)
    if data.details.answered:  # the labels are the network's own answers
        return []
    problems, correct, count = seen.problems(), int(seen.correct.sum()), len(seen.correct)
    better = _better_normalisation(network, data, loader, seen, section) if section is not None else None
    doubtful = problems or correct / count < _DOUBTFUL
    order = _other_order(seen, data.classes) if doubtful else None
    if not problems and better is None and order is None:
        return []
    what = "; ".join(problems) if problems else f"accuracy {correct / count:.1%}"
    return [" ".join(filter(None, (f"The weights as given, on {count} validation images: {what}.", better, order)))]


def _of_sets(network: nn.Module, data: Dataset, loader: Loader) -> list[str]:
    """Of a network for images of several labels: that it learned nothing. Raises ModelError for probabilities."""
    seen = MultilabelOutputs(data.classes)
    network.eval()
    done = 0
    with torch.no_grad():
        for batch in loader.epoch(0):
            seen.add(network(batch.images).float().cpu().numpy(), batch.targets.cpu().numpy())
            done += len(batch.targets)
            if done >= _IMAGES:
                break
    logits = seen.logits
    if bool(((logits >= 0.0) & (logits <= 1.0)).all()) and np.ptp(logits) > 0.0:
        raise ModelError(
            "the network answers with probabilities, and for images of several classes it must answer with logits",
            found=f"outputs between 0 and 1 for all of {counted(done, 'image')}",
            hint="remove the sigmoid behind its last layer",
        )
    problems = seen.summary([0.5] * len(data.classes)).problems
    return [f"The weights as given, on {counted(done, 'validation image')}: {'; '.join(problems)}."] if problems else []


def _better_normalisation(network: nn.Module, data: Dataset, loader: Loader, seen: Outputs, section: str) -> str | None:
    """Another usual normalisation with which the network is certainly and much better."""
    own, count = data.details.preprocessing, len(seen.correct)
    highest = wilson(int(seen.correct.sum()), count)[1]
    best: tuple[float, str] | None = None
    for mean, std in _NORMALISATIONS:
        if len(own.mean) == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        if np.allclose((mean, std), (own.mean, own.std), atol=0.02):
            continue
        correct = int(_outputs(network, data, loader, mean, std).correct.sum())
        if wilson(correct, count)[0] > highest and correct / count > (best[0] if best else 0.0):
            found = f"With another normalisation they reach {correct / count:.1%}: set {section}.mean: {list(mean)}"
            best = (correct / count, f"{found} and {section}.std: {list(std)}.")
    return best[1] if best else None


def _other_order(seen: Outputs, classes: tuple[str, ...]) -> str | None:
    """Whether the network knows the classes, but in another order: one answer per class, which is mostly another's."""
    rows, columns = linear_sum_assignment(-seen.confusion)
    moved = [(row, column) for row, column in zip(rows, columns, strict=True) if row != column]
    count = len(seen.correct)
    right = int(seen.confusion[rows, columns].sum())
    if not moved or wilson(right, count)[0] < max(_DOUBTFUL, 2 * float(seen.correct.mean())):
        return None
    row, column = max(moved, key=lambda each: int(seen.confusion[each]))
    return (
        f"In another order of the classes they reach {right / count:.1%}: images of {classes[row]} are mostly taken "
        f"for {classes[column]}, so the order of the data's classes is not that of the training: set data.class_order, "
        "or data.classes to the classes in that order."
    )


def _outputs(network: nn.Module, data: Dataset, loader: Loader, mean: _Channels, std: _Channels) -> Outputs:
    """The answers to the first images, normalised by `mean` and `std` instead of the data's own."""
    own, seen = data.details.preprocessing, Outputs(data.classes)
    own_mean, own_std, mean_t, std_t = (_column(each, loader.device) for each in (own.mean, own.std, mean, std))
    network.eval()
    done = 0
    with torch.no_grad():
        for batch in loader.epoch(0):
            images = (batch.images * own_std + own_mean - mean_t) / std_t
            logits: npt.NDArray[np.float32] = network(images)[:, : len(data.classes)].float().cpu().numpy()
            seen.add(logits, batch.targets.cpu().numpy())
            done += len(logits)
            if done >= _IMAGES:
                break
    return seen


def _column(values: _Channels, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
