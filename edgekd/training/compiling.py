"""Networks through torch.compile, where a recipe asks for it.

It costs minutes before the first step, so that no rule decides about it. A network is compiled whole or not at all:
where PyTorch would leave parts of it as they are, without a word, the training stops and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._dynamo import config as tracing
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from edgekd.errors import TrainingError

Forward = Callable[[Tensor], Tensor]
# Students and teachers of one architecture share their code; PyTorch's own limit is 8.
_NETWORKS_OF_ONE_CODE = 64


def compiled(network: nn.Module) -> Forward:
    """The network's forward for batches of one size; its weights, buffers and names stay where they are."""
    forward: Forward = torch.compile(network, fullgraph=True, dynamic=False)
    return forward


@contextmanager
def compiling() -> Iterator[None]:
    """A training with compiled networks; what an earlier one compiled is forgotten.

    Raises:
        TrainingError: a network cannot be compiled, or there is no compiler.
    """
    torch._dynamo.reset()
    try:
        with tracing.patch(recompile_limit=_NETWORKS_OF_ONE_CODE):
            yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise TrainingError(
            "a network cannot be compiled",
            found=f"{type(error).__name__}: {lines[0][:200] if lines else ''}",
            hint="leave compile out; on a CPU it needs a C++ compiler, on a GPU Triton",
        ) from error
