"""A round of a federation: every client's training on public and own images, and the artifact of the round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import nn

from edgekd.data.loader import fitting_batch
from edgekd.distillation.federation import Logits
from edgekd.distillation.federation.clients import Clients, ClientTraining, views_seed
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import load_state, read_state
from edgekd.store.artifacts import Artifact, Details, Json
from edgekd.store.records import Metrics, Share

VERSION = 2


class RoundDetails(Details):
    """Each client's network, and how many images of its own it has."""

    architectures: tuple[Architecture, ...]
    images: tuple[int, ...]


class RoundMetrics(Metrics):
    """The accuracy of each client's network, and the rounds so far."""

    validation_accuracy: Annotated[tuple[Share, ...], Field(min_length=1)]
    rounds: tuple[Json, ...] = ()


class Round(Artifact[RoundDetails]):
    """`client1.safetensors`, …: the clients' weights; `consensus.npy`: (V, N, C) float16, the mean of their logits.

    There is no consensus if the clients were trained without one.
    """

    kind = "federated-round"
    measured = RoundMetrics

    def restore(self, number: int, network: nn.Module) -> None:
        """Load a client's weights.

        Args:
            number: of the client, from 1.
            network: of the client's architecture, changed in place.
        """
        file = self.path / f"client{number}.safetensors"
        load_state(network, read_state(file), origin=file)

    def network(self, number: int) -> nn.Module:
        """A client's network, in eval mode.

        Args:
            number: of the client, from 1.
        """
        network = build(self.details.architectures[number - 1])
        self.restore(number, network)
        return network.eval()

    @property
    def consensus(self) -> Logits:
        """(V, N, C) float16, the mean of the clients' logits. Raises OSError if there is none."""
        logits: Logits = np.load(self.path / "consensus.npy")
        return logits


def run_round(number: int, before: Round | None, clients: Clients, out: Path) -> Round:
    """Run one round: each client trains on the last consensus, then on its own images, and computes its public logits.

    Source: Li and Wang (2019), algorithm 1, except for its beginning: there every client first trains on the public
    images and their labels, which do not exist here. In round 1 clients train on their own images only.

    Args:
        number: of the round, from 1.
        before: the round before; None in round 1.
        clients: the clients.
        out: an empty folder, which becomes the artifact.

    Raises:
        TrainingError: a client's logits are too large for half precision; see also fit().
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
        logits = clients.public_logits(client, network, views_seed(training.steps.seed, number))
        architectures.append(architecture)
        scores.append(clients.finish(client, network, out))
        return logits, loss

    consensus, metrics = exchange(train, len(training.models), before.consensus if before is not None else None)
    np.save(out / "consensus.npy", consensus)
    record = {"round": number, **metrics, "validation_accuracy": scores}
    rounds = [*(before.metrics["rounds"] if before is not None else []), record]
    found = {"rounds": rounds, "validation_accuracy": scores}
    return Round.seal(out, details=_details(clients, architectures), metrics=found)


def train_without_consensus(rounds: int, clients: Clients, out: Path) -> Round:
    """Train every client on its own images only, for comparison.

    Args:
        rounds: of the federation; each client takes at least as many steps as in these rounds.
        clients: the clients.
        out: an empty folder, which becomes the artifact.

    Returns:
        The clients, without a consensus.

    Raises:
        TrainingError: see fit().
    """
    architectures: list[Architecture] = []
    scores: list[float] = []
    public = len(clients.partition.public_rows)
    for client in range(1, len(clients.training.models) + 1):
        network, architecture = clients.begin(client)
        own = len(clients.partition.client(client, clients.data))
        clients.learn_labels(client, network, 0, epochs_without_consensus(rounds, own, public, clients.training))
        architectures.append(architecture)
        scores.append(clients.finish(client, network, out))
    return Round.seal(out, details=_details(clients, architectures), metrics={"validation_accuracy": scores})


def epochs_without_consensus(rounds: int, own: int, public: int, training: ClientTraining) -> int:
    """Epochs over a client's own images that take at least as many steps as the rounds.

    Args:
        rounds: how many.
        own: how many images the client has.
        public: how many images are public.
        training: how the client trains.
    """
    wanted, later = training.steps.batch_size, rounds - 1
    own_steps, public_steps = (max(1, images // fitting_batch(wanted, images)) for images in (own, public))
    public_epochs = -(-later * training.public_epochs * public_steps // own_steps)
    return training.first_epochs + later * training.own_epochs + public_epochs


def _details(clients: Clients, architectures: Sequence[Architecture]) -> RoundDetails:
    """Of a round, from the architectures in the clients' order."""
    numbers = range(1, len(architectures) + 1)
    images = tuple(len(clients.partition.client(number, clients.data)) for number in numbers)
    return RoundDetails(architectures=tuple(architectures), images=images)
