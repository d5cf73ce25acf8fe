"""Rounds of a federation; whole ones are in tests/schemes/test_federated.py."""

from __future__ import annotations

from edgekd.distillation.federation.clients import ClientTraining
from edgekd.distillation.federation.rounds import epochs_without_consensus
from edgekd.recipe.settings import AugmentSettings, StepSettings


def test_training_without_consensus_takes_at_least_as_many_steps():
    training = ClientTraining((), StepSettings(batch_size=10), (), AugmentSettings(flip=False), 5, 2, 3, 1)
    # Two later rounds: 2·2 epochs of its own; 2·3 of 40 public images are 24 steps, 8 epochs of 3 steps.
    assert epochs_without_consensus(3, 30, 40, training) == 5 + 4 + 8
