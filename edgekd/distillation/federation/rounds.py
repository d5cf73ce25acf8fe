"""A round of a federation: what each client does with its own images and the public ones, and what it leaves."""

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
from edgekd.distillation.objective import Answers, Distillation, Teacher
from edgekd.distillation.partly_labelled import PartlyLabelled
from edgekd.distillation.terms import build_terms
from edgekd.errors import TrainingError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings
from edgekd.store.artifacts import Artifact, Details
from edgekd.training.fit import Callbacks, Progress, accuracy, fit
from edgekd.training.host import best_device
from edgekd.training.objective import Supervised
from edgekd.training.train import evaluation_loader, initial, training_loader

VERSION = 2
_CLIENT_SEEDS, _ROUND_SEEDS = 1000, 1_000_000


class RoundDetails(Details):
    """Each client's network, and how many images of its own it has."""

    architectures: tuple[Architecture, ...]
    images: tuple[int, ...]


class Round(Artifact[RoundDetails]):
    """`client1.safetensors`, …: the clients' weights; `consensus.npy`: (V, N, C) float16, the mean of their logits.

    There is no consensus where every client learned by itself.
    """

    kind = "federated-round"

    def restore(self, number: int, network: nn.Module) -> None:
        """Load the weights of client `number`, from 1."""
        file = self.path / f"client{number}.safetensors"
        load_state(network, read_state(file), origin=file)

    def network(self, number: int) -> nn.Module:
        """The network of client `number`, from 1, in eval mode."""
        network = build(self.details.architectures[number - 1])
        self.restore(number, network)
        return network.eval()

    @property
    def consensus(self) -> Logits:
        logits: Logits = np.load(self.path / "consensus.npy")
        return logits


@dataclass(frozen=True)
class ClientTraining:
    """How clients train.

    Attributes:
        models: one per client.
        steps: of all trainings, but for their epochs; its share of warm-up stays.
        objective: compares a client's logits with the consensus.
        first_epochs: of the first round, over a client's own images and labels.
        own_epochs, public_epochs: of a later round, over these and over the public images.
        views: of each public image that a client answers to.
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
        """`steps` over other epochs and from another seed."""
        warmup = self.steps.warmup_epochs * epochs / self.steps.epochs
        return self.steps.model_copy(update={"epochs": epochs, "seed": seed, "warmup_epochs": warmup})


@dataclass(frozen=True)
class Clients:
    """The clients, each called by its number from 1: what one does is done with its own images and the public ones.

    Attributes:
        resume: the folder for what they need to go on after a kill.
    """

    data: Dataset
    partition: Partition
    training: ClientTraining
    resume: Path
    progress: Progress | None = None

    def begin(self, client: int) -> tuple[nn.Module, Architecture]:
        """Its network as it is before the first round."""
        torch.manual_seed(self._seed(client, 0))
        return initial(self.training.models[client - 1], self.data)

    def learn_consensus(self, client: int, network: nn.Module, consensus: Logits, views_seed: int) -> None:
        """Train on the public images, in the views that the consensus is about."""
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
        """Train on its own images and their labels in round `number`; the last epoch's loss."""
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

    def answer(self, client: int, network: nn.Module, views_seed: int) -> Logits:
        """(V, N, C) logits for views of the public images, computed in single precision.

        Raises:
            TrainingError: one is too large for half precision.
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
        """Write its weights; its accuracy on the validation split, which no client ever sees."""
        network.to(best_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        save_state(network, out / f"client{client}.safetensors")
        return accuracy(network, evaluation_loader(self.data, "validation"), best_device())

    def details(self, architectures: Sequence[Architecture]) -> RoundDetails:
        """Of a round, from the networks in the clients' order."""
        images = (len(self.partition.client(number, self.data)) for number in range(1, len(architectures) + 1))
        return RoundDetails(architectures=tuple(architectures), images=tuple(images))

    def _seed(self, client: int, number: int) -> int:
        return self.training.steps.seed + _CLIENT_SEEDS * client + _ROUND_SEEDS * number

    def _public_loader(self, seed: int, *, views: int) -> Loader:
        settings, public = self.training.settings(self.training.public_epochs, seed), self.partition.public(self.data)
        return training_loader(self.data, settings, self.training.augment, split=public, views=views)

    def _shown(self, what: str) -> Progress | None:
        show = self.progress
        return None if show is None else lambda done, total, note: show(done, total, f"{what}: {note}")


def play(number: int, before: Round | None, clients: Clients, out: Path) -> Round:
    """Round `number`: each client learns the consensus of the round before, then from its own images, and answers.

    Source: Li and Wang (2019), algorithm 1, but for its beginning: there every client first trains on the public images
    and their labels, which here nobody has. In round 1 clients learn from their own images only. Raises as fit().
    """
    from edgekd.distillation.federation.apps import exchange

    training = clients.training
    architectures: list[Architecture] = []
    scores: list[float] = []

    def train(client: int, consensus: Logits | None) -> tuple[Logits, float]:
        network, architecture = clients.begin(client)
        if before is not None:
            before.restore(client, network)
        if consensus is not None:
            clients.learn_consensus(client, network, consensus, views_seed(training.steps.seed, number - 1))
        epochs = training.first_epochs if consensus is None else training.own_epochs
        loss = clients.learn_labels(client, network, number, epochs)
        logits = clients.answer(client, network, views_seed(training.steps.seed, number))
        architectures.append(architecture)
        scores.append(clients.finish(client, network, out))
        return logits, loss

    consensus, metrics = exchange(train, len(training.models), before.consensus if before is not None else None)
    np.save(out / "consensus.npy", consensus)
    record = {"round": number, **metrics, "validation_accuracy": scores}
    rounds = [*(before.metrics["rounds"] if before is not None else []), record]
    found = {"rounds": rounds, "validation_accuracy": scores}
    return Round.seal(out, details=clients.details(architectures), metrics=found)


def alone(rounds: int, clients: Clients, out: Path) -> Round:
    """Every client on its own images only, in at least as many steps as it takes in `rounds` rounds."""
    architectures: list[Architecture] = []
    scores: list[float] = []
    public = len(clients.partition.public_rows)
    for client in range(1, len(clients.training.models) + 1):
        network, architecture = clients.begin(client)
        own = len(clients.partition.client(client, clients.data))
        clients.learn_labels(client, network, 0, epochs_alone(rounds, own, public, clients.training))
        architectures.append(architecture)
        scores.append(clients.finish(client, network, out))
    return Round.seal(out, details=clients.details(architectures), metrics={"validation_accuracy": scores})


def views_seed(seed: int, number: int) -> int:
    """What draws the views of the public images in round `number`: the consensus is about these."""
    return seed + _ROUND_SEEDS * number


def epochs_alone(rounds: int, own: int, public: int, training: ClientTraining) -> int:
    """Epochs over a client's `own` images that take no fewer steps than `rounds` rounds with `public` ones."""
    batch, later = training.steps.batch_size, rounds - 1
    own_steps, public_steps = max(1, own // batch), max(1, public // batch)
    public_epochs = -(-later * training.public_epochs * public_steps // own_steps)
    return training.first_epochs + later * training.own_epochs + public_epochs


def consensus_objective(
    network: nn.Module, consensus: Logits, data: Dataset, objective: Sequence[TermSettings]
) -> Distillation:
    """What fit() minimises where a network learns from the consensus on the public images."""
    terms = PartlyLabelled(build_terms(objective, networks_for(network, None, data)).each)
    return Distillation(network, Consensus(consensus, best_device()), terms)


class Consensus:
    """Reads what the clients agreed on about the same view of the same public image; see objective.Source.

    Args:
        logits: (V, N, C) float16.
    """

    def __init__(self, logits: Logits, device: torch.device) -> None:
        self._logits, self._device = logits, device

    def __call__(self, batch: Batch) -> Answers:
        rows = self._logits[batch.view][batch.indices.cpu().numpy()]
        return Answers(torch.from_numpy(rows).to(self._device).float())
