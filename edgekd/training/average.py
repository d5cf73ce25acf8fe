"""An exponential moving average of a network (Polyak averaging)."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """An average of `model`: `network` holds the averaged parameters and the latest buffers.

    The decay starts as (1 + t) / (10 + t), so that the random initial weights are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        # One call for all parameters: a loop over them would cost a small network more than the arithmetic.
        average_all = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_all(list(self.network.parameters()), list(model.parameters()), None)
        for own, new in zip(self.network.buffers(), model.buffers(), strict=True):
            own.copy_(new)
