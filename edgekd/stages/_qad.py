"""The schedule of quantization-aware distillation, and when its scales are fixed."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgekd.data.loader import fitting_batch
from edgekd.quantization.placement import freeze
from edgekd.recipe.settings import DistillSettings, QuantizeSettings
from edgekd.store.artifacts import Json
from edgekd.training.fit import BeginEpoch
from edgekd.training.schedule import peak_rate
from edgekd.wording import counted


def schedule(settings: QuantizeSettings, distill: DistillSettings, images: int) -> Json:
    """Epochs and learning rate with where they come from, for the manifest.

    Args:
        settings: what distill gives is filled in.
        distill: the recipe's.
        images: the number of training images.
    """
    batch = fitting_batch(settings.batch_size, images)
    # Of batches of the same size, which both rates are in proportion to where no section sets them.
    rate, theirs = peak_rate(settings, batch), peak_rate(distill, batch)
    epochs_from = f"a tenth of distill's {distill.epochs:,}"
    if settings.epochs != settings.derived_epochs(distill):
        epochs_from = f"from the recipe; distill has {distill.epochs:,}"
    elif 10 * settings.epochs > distill.epochs + 5:
        epochs_from += f", but at least {settings.fewest}"
    low = abs(rate - settings.lower * theirs) < 1e-6 * theirs
    rate_from = f"a hundredth of distill's {theirs:g}" if low else f"from the recipe; distill has {theirs:g}"
    return {
        "epochs": settings.epochs,
        "epochs_from": epochs_from,
        "learning_rate": rate,
        "learning_rate_from": rate_from,
        "scales": settings.scales,
    }


def schedule_facts(schedule: Json) -> list[str]:
    """What schedule() returns, in words."""
    return [
        f"{counted(schedule['epochs'], 'epoch')} ({schedule['epochs_from']})",
        f"peak learning rate {schedule['learning_rate']:g} ({schedule['learning_rate_from']})",
        f"scales {schedule['scales']}",
    ]


def freezing(settings: QuantizeSettings) -> BeginEpoch:
    """A callback for fit() that fixes the scales from an epoch on."""
    return partial(_freeze_from, settings.frozen_from)


def _freeze_from(first: int, network: nn.Module, epoch: int) -> None:
    if epoch >= first:
        freeze(network)
