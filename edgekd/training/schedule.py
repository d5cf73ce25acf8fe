"""The learning rate as a function of the step, so that a schedule has no state to save."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, total: int, warmup: int) -> float:
    """Linear warm-up from peak / warmup to the peak, then half a cosine down to zero at step `total`.

    Source: Loshchilov and Hutter, SGDR, equation 5 without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
