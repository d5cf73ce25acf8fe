"""An objective over images of which some, or all, have no label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from edgekd.distillation.terms import Seen, Terms


class PartlyLabelled(Terms):
    """Terms over a batch in which some targets are −1: those that need labels use the other rows only.

    If no row has a label they are 0, without gradient.
    """

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The weighted losses by name; see Terms."""
        assert seen.targets is not None
        rows = (seen.targets >= 0).nonzero()[:, 0]
        everything, labelled = replace(seen, targets=None), _rows_of(seen, rows)
        losses: dict[str, Tensor] = {}
        with torch.autocast(seen.student_logits.device.type, enabled=False):
            for name, term in zip(self.names, self.each, strict=True):
                if not term.method.needs_labels:
                    losses[name] = term(everything)
                else:
                    losses[name] = term(labelled) if len(rows) else seen.student_logits.new_zeros(())
        return losses


def _rows_of(seen: Seen, rows: Tensor) -> Seen:
    def of(features: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
        return None if features is None else {path: feature[rows] for path, feature in features.items()}

    return Seen(
        student_logits=seen.student_logits[rows],
        teacher_logits=None if seen.teacher_logits is None else seen.teacher_logits[rows],
        targets=None if seen.targets is None else seen.targets[rows],
        indices=None if seen.indices is None else seen.indices[rows],
        student_features=of(seen.student_features),
        teacher_features=of(seen.teacher_features),
        epoch=seen.epoch,
    )
