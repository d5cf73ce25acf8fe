"""The clients of a federation: each trains on its own images and on the consensus about the public ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch, Loader
from edgekd.distillation.distill import networks_for
from edgekd.distillation.federation import Logits
from edgekd.distillation.federation.partition import Partition
from edgekd.distillation.objective import Distillation, Outputs, Teacher
from edgekd.distillation.partly_labelled import PartlyLabelled
from edgekd.distillation.terms import build_terms
from edgekd.errors import TrainingError
from edgekd.models.architecture import Architecture
from edgekd.models.weights import save_state
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings
from edgekd.training.fit import Callbacks, Progress, accuracy, fit
from edgekd.training.host import best_device
from edgekd.training.objective import Supervised
from edgekd.training.train import evaluation_loader, initial, training_loader

_CLIENT_SEEDS, _ROUND_SEEDS = 1000, 1_000_000


@dataclass(frozen=True)
class ClientTraining:
    """How clients train.

    Attributes:
        models: one per client.
        steps: settings of all trainings except their epochs; the share of warm-up epochs stays the same.
        objective: compares a client's logits with the consensus.
        first_epochs: of the first round, over a client's own images and labels.
        own_epochs, public_epochs: of a later round, over these and over the public images.
        views: of each public image for which a client computes logits.
    """

    models: Sequence[ModelSettings]
    steps: StepSettings
    objective: Sequence[TermSettings]
    augment: AugmentSettings
    first_epochs: int
    own_epochs: int
    public_epochs: int
    views: int

    def settings(self, epochs: int, seed: int) -> StepSettings:
        """`steps` for a training of so many epochs from another seed; the share of warm-up epochs stays the same."""
        warmup = self.steps.warmup_epochs * epochs / self.steps.epochs
        return self.steps.model_copy(update={"epochs": epochs, "seed": seed, "warmup_epochs": warmup})


@dataclass(frozen=True)
class Clients:
    """The clients, by their numbers from 1: each trains on its own images and on the public ones only.

    Attributes:
        data: whose training split the partition divides.
        partition: the images of each client, and the public ones.
        training: how the clients train.
        resume: the folder for the state that an interrupted training resumes from.
    """

    data: Dataset
    partition: Partition
    training: ClientTraining
    resume: Path
    progress: Progress | None = None

    def begin(self, client: int) -> tuple[nn.Module, Architecture]:
        """A client's network before the first round, and its architecture."""
        torch.manual_seed(self._seed(client, 0))
        return initial(self.training.models[client - 1], self.data)

    def learn_consensus(self, client: int, network: nn.Module, consensus: Logits, views_seed: int) -> None:
        """Train a client on the public images, in the views that the consensus was computed for.

        Args:
            client: its number, from 1.
            network: the client's, changed in place.
            consensus: (V, N, C) float16.
            views_seed: of these views; see views_seed().

        Raises:
            TrainingError: see fit().
        """
        training = self.training
        fit(
            network,
            consensus_objective(network, consensus, self.data, training.objective),
            self._public_loader(views_seed, views=len(consensus)),
            training.settings(training.public_epochs, views_seed),
            resume=self.resume / f"client{client}" / "public",
            callbacks=Callbacks(self._shown(f"client {client}, public")),
        )

    def learn_labels(self, client: int, network: nn.Module, number: int, epochs: int) -> float:
        """Train a client on its own images and their labels.

        Args:
            client: its number, from 1.
            network: the client's, changed in place.
            number: of the round, from 1; 0 outside of rounds.
            epochs: over its images.

        Returns:
            The last epoch's loss.

        Raises:
            TrainingError: see fit().
        """
        settings, own = self.training.settings(epochs, self._seed(client, number)), self.partition.client
        history = fit(
            network,
            Supervised(),
            training_loader(self.data, settings, self.training.augment, split=own(client, self.data)),
            settings,
            resume=self.resume / f"client{client}" / "own",
            callbacks=Callbacks(self._shown(f"client {client}, own")),
        )
        return history[-1].loss

    def public_logits(self, client: int, network: nn.Module, views_seed: int) -> Logits:
        """A client's logits for views of the public images, computed in single precision.

        Args:
            client: its number, from 1, for the message.
            network: the client's.
            views_seed: of these views; see views_seed().

        Returns:
            (V, N, C) float16.

        Raises:
            TrainingError: a logit is too large for half precision.
        """
        teacher, views = Teacher(network, best_device(), "fp32"), self.training.views
        loader = self._public_loader(views_seed, views=views)
        logits: Logits = np.empty((views, loader.image_count, len(self.data.classes)), dtype=np.float16)
        for view in range(views):
            for batch in loader.view(view):
                logits[view, batch.indices.cpu().numpy()] = teacher(batch).logits.half().cpu().numpy()
        if not np.isfinite(logits).all():
            raise TrainingError(
                f"client {client}'s logits are too large to be sent in half precision",
                allowed="up to 65504",
                hint="lower distill.learning_rate",
            )
        return logits

    def finish(self, client: int, network: nn.Module, out: Path) -> float:
        """Write a client's weights.

        Args:
            client: its number, from 1.
            network: the client's.
            out: the folder for the weights.

        Returns:
            Its accuracy on the validation split, from 0 to 1; no client trains on that split.
        """
        network.to(best_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        save_state(network, out / f"client{client}.safetensors")
        return accuracy(network, evaluation_loader(self.data, "validation"), best_device())

    def _seed(self, client: int, number: int) -> int:
        return self.training.steps.seed + _CLIENT_SEEDS * client + _ROUND_SEEDS * number

    def _public_loader(self, seed: int, *, views: int) -> Loader:
        settings, public = self.training.settings(self.training.public_epochs, seed), self.partition.public(self.data)
        return training_loader(self.data, settings, self.training.augment, split=public, views=views)

    def _shown(self, what: str) -> Progress | None:
        show = self.progress
        return None if show is None else lambda done, total, note: show(done, total, f"{what}: {note}")


def views_seed(seed: int, number: int) -> int:
    """The seed of the views of the public images in a round: the consensus is computed for these views.

    Args:
        seed: of the training.
        number: of the round, from 1.
    """
    return seed + _ROUND_SEEDS * number


def consensus_objective(
    network: nn.Module, consensus: Logits, data: Dataset, objective: Sequence[TermSettings]
) -> Distillation:
    """What fit() minimises when a network learns from the consensus on the public images.

    Args:
        network: the learner.
        consensus: (V, N, C) float16.
        data: for the size of its images.
        objective: losses on logits that need no labels.
    """
    terms = PartlyLabelled(build_terms(objective, networks_for(network, None, data)).each)
    return Distillation(network, Consensus(consensus, best_device()), terms)


class Consensus:
    """Reads the consensus for the same view of the same public image; see objective.Source.

    Args:
        logits: (V, N, C) float16.
        device: where the logits are needed.
    """

    def __init__(self, logits: Logits, device: torch.device) -> None:
        self._logits, self._device = logits, device

    def __call__(self, batch: Batch) -> Outputs:
        rows = self._logits[batch.view][batch.indices.cpu().numpy()]
        return Outputs(torch.from_numpy(rows).to(self._device).float())
