"""torch.compile, where a recipe asks for it.

Compiling takes minutes before the first step, so it is never chosen automatically. A network is compiled as a whole:
where PyTorch would silently leave parts of it uncompiled, the training stops with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# PyTorch has no public names for the errors of its compiler, and their public base class RuntimeError is everything's.
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.compiler import config

from edgekd.errors import TrainingError, summary

Forward = Callable[[Tensor], Tensor]
# Networks of one architecture share compiled code; PyTorch's default limit is 8.
_NETWORKS_OF_ONE_CODE = 64


def compiled(network: nn.Module) -> Forward:
    """A compiled forward for batches of one size; the network itself is not changed."""
    forward: Forward = torch.compile(network, fullgraph=True, dynamic=False)
    return forward


@contextmanager
def compiling() -> Iterator[None]:
    """A context for training with compiled networks; earlier compiled code is discarded.

    Raises:
        TrainingError: a network cannot be compiled, or there is no compiler.
    """
    torch.compiler.reset()
    try:
        with config.patch(recompile_limit=_NETWORKS_OF_ONE_CODE):  # type: ignore[attr-defined]
            yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        raise TrainingError(
            "a network cannot be compiled",
            found=summary(error),
            hint="remove compile; on a CPU it needs a C++ compiler, on a GPU Triton",
        ) from error
