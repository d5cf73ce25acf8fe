"""The learning rate as a function of the step, so that a schedule has no state to save."""

from __future__ import annotations

import math

from edgekd.data.loader import USUAL_BATCH
from edgekd.recipe.settings import StepSettings

# For batches of USUAL_BATCH images.
_DEFAULT_PEAKS = {"sgd": 0.1, "adamw": 0.001}


def peak_rate(settings: StepSettings, batch_size: int) -> float:
    """The peak learning rate: the recipe's, else the default for batches of this size.

    The default is in proportion to the batch size (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1), up
    to the usual size only: larger batches would need a longer warm-up too.

    Args:
        settings: of the training.
        batch_size: the number of images in a step.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    proportion = min(1.0, batch_size / USUAL_BATCH)
    return round(settings.lower * _DEFAULT_PEAKS[settings.optimizer] * proportion, 12)


def learning_rate(step: int, *, peak: float, total: int, warmup: int) -> float:
    """Linear warm-up from peak / warmup to the peak, then half a cosine down to zero at step `total`.

    Source: Loshchilov and Hutter, SGDR, equation 5 without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
