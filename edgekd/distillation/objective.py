"""A weighted sum of terms over one batch, with one pass through the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distillation.taps import Taps
from edgekd.distillation.terms import Features, Seen, Terms
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.onnx_network import OnnxNetwork
from edgekd.recipe.settings import Precision
from edgekd.training.bf16 import inference_precision
from edgekd.training.compiling import Forward, compiled
from edgekd.training.host import autocast


@dataclass(frozen=True)
class Outputs:
    """A teacher's outputs for a batch: (B, C) logits in single precision, and the features at the tapped layers."""

    logits: Tensor
    features: Features = field(default_factory=dict)


class Source(Protocol):
    """Where a teacher's outputs come from: one live network, several of them, or stored outputs."""

    def __call__(self, batch: Batch) -> Outputs: ...


class Teacher:
    """A frozen network, run live.

    It is not an nn.Module, so that a student's optimiser, checkpoint and resume state never hold it.

    Args:
        network: moved to the device, set to eval mode and frozen.
        device: where it runs.
        precision: of its forward pass; see of().
        layers: the paths of its tapped layers; see edgekd.distillation.taps.
        use_compile: run it through torch.compile; not with layers.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: Literal["fp32", "bf16"],
        layers: Sequence[str] = (),
        *,
        use_compile: bool = False,
    ) -> None:
        self._network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._network.requires_grad_(False)
        # An ONNX file runs in an engine of its own.
        is_torch = not isinstance(self._network, OnnxNetwork)
        self._forward = compiled(self._network) if use_compile and is_torch else self._network
        self._taps = Taps(network, layers)
        self._device = device
        self.precision = precision

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        device: torch.device,
        wanted: Precision,
        layers: Sequence[str] = (),
        *,
        use_compile: bool = False,
    ) -> Teacher:
        """A checkpoint's network; with "auto" in bf16 only if that is known to keep its predictions.

        Args:
            checkpoint: the teacher.
            device: where it runs.
            wanted: its precision.
            layers, use_compile: see Teacher.

        Raises:
            UsageError: `wanted` is bf16, which this teacher or device does not support.
        """
        network = checkpoints.load(checkpoint)
        precision, _ = inference_precision(checkpoint, network, device, wanted)
        return cls(network, device, precision, layers, use_compile=use_compile)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        with autocast(self.precision, self._device), self._taps.reading() as features:
            logits: Tensor = self._forward(batch.images)
        return Outputs(logits.float(), features)


class Distillation(nn.Module):
    """What fit() minimises: the terms of the student's and the teacher's outputs for the same images.

    Args:
        student: the network itself, which fit() may wrap before it hands it to forward().
        teacher: the source of its outputs; None if no term needs them.
        terms: the weighted losses.
    """

    def __init__(self, student: nn.Module, teacher: Source | None, terms: Terms) -> None:
        super().__init__()
        self._taps = Taps(student, terms.student_layers)
        self._teacher = teacher
        self.terms = terms

    def forward(self, model: Forward, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a batch, scalars by the names of their terms."""
        with self._taps.reading() as features:
            logits = model(batch.images)
        outputs = self._teacher(batch) if self._teacher is not None and self.terms.needs_teacher else None
        losses: dict[str, Tensor] = self.terms(
            Seen(
                student_logits=logits,
                teacher_logits=outputs.logits if outputs else None,
                targets=batch.targets,
                indices=batch.indices,
                student_features=features,
                teacher_features=outputs.features if outputs else None,
                epoch=batch.epoch,
            )
        )
        return losses
