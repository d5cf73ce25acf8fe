"""Facts that several stages report."""

from __future__ import annotations

from edgekd.models.checkpoint import Checkpoint


def network_facts(checkpoint: Checkpoint) -> list[str]:
    """A network's validation accuracy, agreement or mAP, where it was measured, and its number of parameters."""
    metrics = checkpoint.metrics
    shown = {
        "accuracy": "validation {:.2%}",
        "agreement": "answers as in float on {:.2%} of the validation images",
        "mAP": "validation mAP {:.2%}",
    }
    scores = {measure: metrics.get(f"validation_{measure}") for measure in shown}
    known = [shown[measure].format(score) for measure, score in scores.items() if score is not None]
    return [*known, f"{metrics['parameters']:,} parameters"]
