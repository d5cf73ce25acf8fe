"""Facts that several stages report."""

from __future__ import annotations

from edgekd.models.checkpoint import Checkpoint


def network_facts(checkpoint: Checkpoint) -> list[str]:
    """A network's validation accuracy, where it was measured, and its number of parameters."""
    score, parameters = checkpoint.metrics.get("validation_accuracy"), checkpoint.metrics["parameters"]
    accuracy = [f"validation {score:.2%}"] if score is not None else []
    return [*accuracy, f"{parameters:,} parameters"]


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
