"""A PyTorch network as a session, so that it is measured as an exported file is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from edgekd.errors import BackendError
from edgekd.runtime.backends import Array, Feed, Session, TensorInfo


class TorchSession(Session):
    """A network in eval mode, on the GPU where there is one.

    Args:
        network: from images (N, C, H, W) to one tensor of logits.
    """

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()

    def __init__(self, network: nn.Module) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.engine = f"PyTorch {torch.__version__}"
        self._network: nn.Module | None = network.eval().to(self.device)

    def bind(self, inputs: Feed) -> Callable[[], Array]:
        if self._network is None:
            raise BackendError("this session was closed", hint="open the model again")
        if isinstance(inputs, Mapping):
            raise BackendError("a PyTorch network is given its one input without a name", found=", ".join(inputs))
        network, images = self._network, torch.from_numpy(inputs).to(self.device)

        @torch.no_grad()
        def call() -> Array:
            try:
                logits: torch.Tensor = network(images)
            except (RuntimeError, ValueError) as error:
                raise BackendError("the network does not take these images", found=str(error)[:300]) from None
            outputs: Array = logits.float().cpu().numpy()
            return outputs

        return call

    def close(self) -> None:
        self._network = None
