from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgekd.distillation.method import Method
from edgekd.distillation.methods._features import Shape, fits, unit, vectors, without_batch
from edgekd.distillation.methods._logits import Temperature

Dimension = Annotated[int, Field(ge=1)]
Negatives = Annotated[int, Field(ge=1)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]

# Similarities of a batch with a whole memory are held for this many pairs at once: 64 MiB in single precision.
_PAIRS_AT_ONCE = 2**24
# Numbers gathered at once: 8 MiB. Of more, a CPU spends most of its time on allocation.
_GATHERED_AT_ONCE = 2**21
# Until it does this many times their work a product with the whole memory is quicker than gathering rows (on a CPU).
_WHOLE_UNTIL = 16


def contrast(scores: Tensor, log_z: Tensor, sample_count: int) -> tuple[Tensor, Tensor]:
    """−log h_0 − Σ_k log(1 − h_k), mean over the batch, with h = p / (p + K/N) and p = exp(score) / Z.

    Source: Tian, Krishnan and Isola, Contrastive Representation Distillation (2020), section 3.1; Z as in
    its public code. Computed on logarithms, so that no temperature overflows and no epsilon is needed.

    Args:
        scores: (B, 1 + K), similarities over the temperature, the sample's own first.
        log_z: (), log of Z.
        sample_count: N.

    Returns:
        The loss, a scalar, and its derivative by `scores`, (B, 1 + K).
    """
    batch, count = scores.shape
    logits = scores - log_z - math.log((count - 1) / sample_count)
    loss = -(F.logsigmoid(logits[:, 0]).sum() + F.logsigmoid(-logits[:, 1:]).sum()) / batch
    derivative = logits.sigmoid()
    derivative[:, 0] -= 1.0
    return loss, derivative / batch


class Crd(nn.Module):
    """Distinguish one image's embedding by the other network from those of K other images, in both directions.

    The others are stored: a moving average of every training sample's embedding, one memory per network. The
    memories and the two constants Z (set by the first training step; the student's is the first) are buffers, so that
    a saved state resumes: exactly on a CPU; on CUDA scatter_add_ and index_copy_ are not deterministic. Each process of
    a distributed training keeps its own memories. They are updated after the step's loss, without gradient, in training
    mode only.

    Source: Tian, Krishnan and Isola (2020), section 3.1. Negatives are drawn with torch's global generator, uniformly
    from all other samples, repeats allowed: some may be of the same class, as in the paper's form without labels;
    public code leaves those out by label, and the tuned weight of 0.8 was found with negatives of other classes only.
    The memory starts as random rows of length 1 (in public code approximately). If an index is in a batch twice,
    one of its two embeddings is stored.

    Memory: two banks of sample_count · dimension, some arrays of B · (1 + negatives) and a chunk of 64 MiB, or of
    one sample's candidates where these are more. A memory of up to 16 times as many samples as a sample has
    candidates is multiplied whole; of a larger one the candidates' rows are gathered.

    Args:
        student_shape, teacher_shape: of the embeddings, with or without the batch; a map is averaged over its
            positions.
        sample_count: N, samples in the training split.
        dimension: of the common space.
        negatives: K, for each sample of a batch; may exceed N.
        temperature: similarities are divided by it.
        momentum: share of a memory's row that stays.

    Raises:
        ValueError: fewer than two samples.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    log_z: Tensor

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
        sample_count: int,
        *,
        dimension: Dimension = 128,
        negatives: Negatives = 16384,
        temperature: Temperature = 0.07,
        momentum: Momentum = 0.5,
    ) -> None:
        super().__init__()
        if sample_count < 2:
            raise ValueError(f"crd contrasts a sample with others and needs two or more, not {sample_count}")
        self.student_embed = nn.Linear(without_batch(student_shape)[0], dimension)
        self.teacher_embed = nn.Linear(without_batch(teacher_shape)[0], dimension)
        self.register_buffer("student_memory", unit(torch.randn(sample_count, dimension)))
        self.register_buffer("teacher_memory", unit(torch.randn(sample_count, dimension)))
        self.register_buffer("log_z", torch.full((2,), torch.nan))
        self._negatives = negatives
        self._temperature = temperature
        self._momentum = momentum

    def forward(self, student_feature: Tensor, teacher_feature: Tensor, indices: Tensor) -> Tensor:
        """The sum of both directions.

        Args:
            student_feature, teacher_feature: (B, C) or (B, C, H, W). No gradient reaches the teacher's, but one reaches
                the teacher's own linear layer.
            indices: (B,) int64, positions in the training split.

        Returns:
            A scalar: both directions, each a mean over the batch.
        """
        # A training step may run under autocast, which would take these products in half precision.
        with torch.autocast(student_feature.device.type, enabled=False):
            student = unit(self.student_embed(fits(vectors(student_feature), self.student_embed)))
            teacher = unit(self.teacher_embed(fits(vectors(teacher_feature.detach()), self.teacher_embed)))
            candidates = self._candidates(indices)
            loss = self._one_way(student, self.teacher_memory, candidates, 0)
            loss = loss + self._one_way(teacher, self.student_memory, candidates, 1)
            if self.training:
                self._remember(self.student_memory, indices, student.detach())
                self._remember(self.teacher_memory, indices, teacher.detach())
        return loss

    def _candidates(self, indices: Tensor) -> Tensor:
        """(B, 1 + K): the sample itself, then others."""
        size = (len(indices), self._negatives)
        others = torch.randint(len(self.student_memory) - 1, size, device=indices.device)
        others += others >= indices[:, None]
        return torch.cat([indices[:, None], others], 1)

    def _one_way(self, anchors: Tensor, memory: Tensor, candidates: Tensor, way: int) -> Tensor:
        """The gradient is taken here, not later by autograd: by then the memory has moved on."""
        with torch.no_grad():
            scores = _similarities(anchors, memory, candidates) / self._temperature
            log_z = self._normaliser(scores, way)
            loss, derivative = contrast(scores, log_z, len(memory))
            gradient = _weighted_rows(derivative / self._temperature, memory, candidates)
        product = (anchors * gradient).sum()
        return loss + (product - product.detach())

    def _normaliser(self, scores: Tensor, way: int) -> Tensor:
        """log Z; where none is set yet, log of N times the mean of exp(score) over this batch."""
        estimate = scores.logsumexp((0, 1)) - math.log(scores.numel() / len(self.student_memory))
        log_z = torch.where(self.log_z[way].isnan(), estimate, self.log_z[way])
        if self.training:
            self.log_z[way] = log_z
        return log_z

    @torch.no_grad()
    def _remember(self, memory: Tensor, indices: Tensor, rows: Tensor) -> None:
        mixed = self._momentum * memory[indices] + (1.0 - self._momentum) * rows
        memory.index_copy_(0, indices, unit(mixed))


def _similarities(anchors: Tensor, memory: Tensor, candidates: Tensor) -> Tensor:
    """(B, 1 + K): anchors[b] · memory[candidates[b, k]]."""
    if not _gathers(memory, candidates):
        size = max(1, _PAIRS_AT_ONCE // len(memory))
        pairs = zip(torch.split(anchors, size), torch.split(candidates, size), strict=True)
        return torch.cat([(rows @ memory.mT).gather(1, chosen) for rows, chosen in pairs])
    size = max(1, _GATHERED_AT_ONCE // (candidates.shape[1] * memory.shape[1]))
    pairs = zip(torch.split(anchors, size), torch.split(candidates, size), strict=True)
    return torch.cat([(_rows(memory, chosen) @ rows[:, :, None]).squeeze(2) for rows, chosen in pairs])


def _weighted_rows(weights: Tensor, memory: Tensor, candidates: Tensor) -> Tensor:
    """(B, D): Σ_k weights[b, k] · memory[candidates[b, k]], the transpose of `_similarities`."""
    if _gathers(memory, candidates):
        return F.embedding_bag(candidates, memory, per_sample_weights=weights, mode="sum")
    size = max(1, _PAIRS_AT_ONCE // len(memory))
    pairs = zip(torch.split(weights, size), torch.split(candidates, size), strict=True)
    empty = weights.new_zeros((1, len(memory)))
    return torch.cat([empty.repeat(len(w), 1).scatter_add_(1, chosen, w) @ memory for w, chosen in pairs])


def _gathers(memory: Tensor, candidates: Tensor) -> bool:
    return len(memory) > _WHOLE_UNTIL * candidates.shape[1]


def _rows(memory: Tensor, chosen: Tensor) -> Tensor:
    """(B, 1 + K, D), by index_select, which on a CPU is several times quicker than indexing."""
    return memory.index_select(0, chosen.flatten()).view(*chosen.shape, memory.shape[1])


METHOD = Method(module=Crd, taps="embedding")
