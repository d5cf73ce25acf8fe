"""An ONNX file as a network: its logits only, computed by an inference engine."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgekd.errors import BackendError, ExportError, ModelError, summary
from edgekd.models import onnx_graph
from edgekd.models.conversion import Conversion
from edgekd.models.onnx_graph import Signature
from edgekd.runtime.backends import Session, open_reference

MODEL = "onnx/file"
_LARGEST = 2**31 - 1
_SUM_ROUNDING = 1e-3
_BATCH = 64
_OPEN_SIZE = 224


class OnnxNetwork(nn.Module):
    """A network that an inference engine runs. It cannot be trained, and has no layers to look at.

    Args:
        size: bytes of the file.
        classes: the number of its logits.
        log: whether its outputs are probabilities, whose logarithms are taken as logits.
    """

    graph: Tensor

    def __init__(self, size: int, classes: int, *, log: bool = False) -> None:
        super().__init__()
        # In the state dict, so that a checkpoint holds the file as it holds weights.
        self.register_buffer("graph", torch.zeros(size, dtype=torch.uint8))
        self._classes, self.log = classes, log
        # Whether all outputs for noise were between 0 and 1; not known of a network from a checkpoint.
        self.probabilities = False
        self._session: Session | None = None

    @classmethod
    def read(cls, path: Path, classes: int) -> OnnxNetwork:
        """The network in a file, with the data files beside it.

        Raises:
            ModelError: it cannot be read or run, or does not take images and give one finite value per class.
        """
        try:
            content = onnx.load(path).SerializeToString()
        except Exception as error:  # protobuf's and onnx's exceptions have no common base class
            raise ModelError(f"{path} cannot be read as ONNX", found=summary(error)) from None
        if not content:
            raise ModelError(f"{path} is empty")
        if len(content) > _LARGEST:
            raise ModelError(f"{path} is too large", found=f"{len(content):,} bytes", allowed="up to 2 GiB")
        network = cls(len(content), classes)
        network.graph.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        try:
            network._notice_probabilities()
        except ModelError as error:
            raise ModelError(f"{path}: {error.what}", found=error.found, allowed=error.allowed) from None
        except BackendError as error:
            raise ModelError(f"{path} cannot be run", found=error.found or error.what) from None
        except Exception as error:  # onnx's and the engine's exceptions have no common base class
            raise ModelError(f"{path} cannot be run on images", found=summary(error)) from None
        return network

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        other = OnnxNetwork(len(self.graph), self._classes, log=self.log)
        other.graph = self.graph.clone()
        other._forward_pre_hooks = copy.deepcopy(self._forward_pre_hooks, memo)
        return other.train(self.training)

    @property
    def proto(self) -> onnx.ModelProto:
        return onnx.load_from_string(self.graph.cpu().numpy().tobytes())

    @property
    def signature(self) -> Signature:
        return onnx_graph.signature(self.proto, self._classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes) logits, without gradients."""
        session = self._opened()
        array = np.ascontiguousarray(images.detach().float().cpu().numpy())
        fixed = session.inputs[0].shape[0]
        size = fixed if isinstance(fixed, int) else _BATCH
        parts = []
        for start in range(0, len(array), size):
            part = array[start : start + size]
            # A fixed batch is filled up, and what is too much dropped.
            missing = size - len(part) if isinstance(fixed, int) else 0
            filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            parts.append(session.bind(filled)()[: len(part)])
        return torch.from_numpy(np.concatenate(parts)).to(images.device)

    def cost(self) -> dict[str, int]:
        """As edgekd.models.cost.cost()."""
        return onnx_graph.cost(self.proto)

    def as_graph(self) -> onnx.ModelProto:
        """The file as a graph for the inputs of the data, which it converts to its own.

        Raises:
            ExportError: the file has a fixed batch.
        """
        seen = self.signature
        if seen.batch is not None:
            raise ExportError(
                "the ONNX file of the teacher has a fixed batch", found=seen.batch, allowed="a dynamic one"
            )
        conversions = [hook for hook in self._forward_pre_hooks.values() if isinstance(hook, Conversion)]
        return onnx_graph.framed(self.proto, seen, conversions, log=self.log)

    def _opened(self) -> Session:
        if self._session is None:
            graph = onnx_graph.framed(self.proto, self.signature, log=self.log)
            # The engine reads the file when it opens it.
            with tempfile.TemporaryDirectory() as folder:
                onnx.save(graph, Path(folder) / "model.onnx")
                self._session = open_reference(Path(folder) / "model.onnx", as_written=False)
        return self._session

    def _notice_probabilities(self) -> None:
        channels, *sides = self.signature.shape
        images = torch.randn(2, channels, *(side or _OPEN_SIZE for side in sides))
        outputs = self(images)
        if not bool(outputs.isfinite().all()):
            raise ModelError("it answers noise with NaN or infinite values")
        self.probabilities = bool(((outputs >= 0) & (outputs <= 1)).all())
        if self.probabilities and bool(((outputs.sum(1) - 1.0).abs() < _SUM_ROUNDING).all()):
            self.log, self._session = True, None
