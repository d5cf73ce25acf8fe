"""Facts that several stages report in the same words."""

from __future__ import annotations

from edgekd.models.checkpoint import Checkpoint


def of_network(checkpoint: Checkpoint) -> list[str]:
    """How well a network does on the validation split, and how large it is."""
    score, parameters = checkpoint.metrics.get("validation_accuracy"), checkpoint.metrics["parameters"]
    known = [f"validation {score:.2%}"] if score is not None else []
    return [*known, f"{parameters:,} parameters"]


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
