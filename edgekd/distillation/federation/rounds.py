"""A round of a federation: what each client does with its own images and the public ones, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.data.dataset import Dataset, Split
from edgekd.data.loader import Batch, Loader
from edgekd.distillation.distill import networks_for
from edgekd.distillation.federation import Logits
from edgekd.distillation.federation.partition import Partition
from edgekd.distillation.objective import Answers, Distillation, Teacher
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.errors import ArtifactError, TrainingError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TermSettings
from edgekd.store.artifacts import Artifact, Details
from edgekd.store.store import resume_folder
from edgekd.training.fit import Callbacks, Progress, accuracy, fit
from edgekd.training.host import best_device
from edgekd.training.objective import Supervised
from edgekd.training.train import evaluation_loader, initial, training_loader

VERSION = 2
State = Mapping[str, Tensor]
_BETWEEN_CLIENTS, _BETWEEN_ROUNDS = 1000, 1_000_000


class RoundDetails(Details):
    """What a round left.

    Attributes:
        architectures, images: each client's network, and how many images of its own it has.
        round: from 1; None where the clients learned alone.
        views_seed: what draws the views of the public images that the consensus is about; None without a consensus.
    """

    architectures: tuple[Architecture, ...]
    images: tuple[int, ...]
    round: int | None = None
    views_seed: int | None = None


class Round(Artifact[RoundDetails]):
    """`client1.safetensors`, …: the clients' weights; `consensus.npy`: (V, N, C) float16, the mean of their logits."""

    kind = "federated-round"

    def network(self, number: int) -> nn.Module:
        """Client `number`'s, from 1, in eval mode."""
        network, file = build(self.architecture(number)), self.path / f"client{number}.safetensors"
        load_state(network, read_state(file), origin=file)
        return network.eval()

    def architecture(self, number: int) -> Architecture:
        return self.details.architectures[number - 1]

    @property
    def views_seed(self) -> int:
        """What draws the views of the public images that the consensus is about.

        Raises:
            ArtifactError: the clients learned alone, and agreed on nothing.
        """
        if self.details.views_seed is None:
            raise ArtifactError(f"{self.path} has no consensus", found="clients that learned alone")
        return self.details.views_seed


@dataclass(frozen=True)
class Habits:
    """How clients train.

    Attributes:
        models: one a client.
        first_epochs: of the first round, over a client's own images and labels.
        own_epochs, public_epochs: of a later round, over these and over the public images.
        objective: what compares a client's answers with the consensus.
        views: of each public image that a client is asked about.
    """

    models: Sequence[ModelSettings]
    steps: StepSettings
    objective: Sequence[TermSettings]
    augment: AugmentSettings
    first_epochs: int
    own_epochs: int
    public_epochs: int
    views: int

    def short(self, epochs: int, seed: int) -> StepSettings:
        """The same steps for other epochs, with the same share of warm-up."""
        warmup = self.steps.warmup_epochs * epochs / self.steps.epochs
        return self.steps.model_copy(update={"epochs": epochs, "seed": seed, "warmup_epochs": warmup})

    def own_seed(self, client: int, number: int) -> int:
        return self.steps.seed + _BETWEEN_CLIENTS * client + _BETWEEN_ROUNDS * number

    def views_seed(self, number: int) -> int:
        return self.steps.seed + _BETWEEN_ROUNDS * number


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


class Unlabelled(Terms):
    """Terms that are shown no label."""

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        return super().forward(replace(seen, targets=None))


def digesting(
    network: nn.Module,
    consensus: Logits,
    data: Dataset,
    objective: Sequence[TermSettings],
) -> Distillation:
    """What fit() minimises where a network learns from the consensus on the public images."""
    built = build_terms(objective, networks_for(network, None, data))
    terms = Unlabelled(built.each)
    return Distillation(network, Consensus(consensus, best_device()), terms)


@dataclass(frozen=True)
class Client:
    """One client: all that it may see.

    Attributes:
        number: from 1.
        own: its private images, with labels.
        public: everybody's, without.
        resume: where it keeps what it needs to go on after a kill.
    """

    number: int
    own: Split
    public: Split
    data: Dataset
    habits: Habits
    resume: Path
    progress: Progress | None = None

    def begin(self) -> tuple[nn.Module, Architecture]:
        """Its network as it is before the first round."""
        torch.manual_seed(self.habits.own_seed(self.number, 0))
        return initial(self.habits.models[self.number - 1], self.data)

    def digest(self, network: nn.Module, consensus: Logits, seed: int) -> None:
        """Learn from the consensus on public images, in the views that it is about."""
        habits = self.habits
        fit(
            network,
            digesting(network, consensus, self.data, habits.objective),
            self._public(seed, views=len(consensus)),
            habits.short(habits.public_epochs, seed),
            resume=self.resume / "public",
            callbacks=Callbacks(self._told("public")),
        )

    def revisit(self, network: nn.Module, number: int, epochs: int) -> float:
        """Learn from its own images and their labels; the last epoch's loss."""
        settings = self.habits.short(epochs, self.habits.own_seed(self.number, number))
        history = fit(
            network,
            Supervised(),
            training_loader(self.data, settings, self.habits.augment, split=self.own),
            settings,
            resume=self.resume / "own",
            callbacks=Callbacks(self._told("own")),
        )
        return history[-1].loss

    def answer(self, network: nn.Module, seed: int) -> Logits:
        """(V, N, C) logits for views of the public images, computed in single precision.

        Raises:
            TrainingError: one is too large for half precision.
        """
        teacher, loader = Teacher(network, best_device(), "fp32"), self._public(seed, views=self.habits.views)
        answers: Logits = np.empty((self.habits.views, len(self.public), len(self.data.classes)), dtype=np.float16)
        for view in range(self.habits.views):
            for batch in loader.view(view):
                answers[view, batch.indices.cpu().numpy()] = teacher(batch).logits.half().cpu().numpy()
        if not np.isfinite(answers).all():
            raise TrainingError(
                f"client {self.number}'s logits are too large to be sent in half precision",
                allowed="up to 65504",
                hint="lower distill.learning_rate",
            )
        return answers

    def _public(self, seed: int, *, views: int) -> Loader:
        settings = self.habits.short(self.habits.public_epochs, seed)
        return training_loader(self.data, settings, self.habits.augment, split=self.public, views=views)

    def _told(self, what: str) -> Progress | None:
        tell = self.progress
        if tell is None:
            return None
        return lambda done, total, note: tell(done, total, f"client {self.number}, {what}: {note}")


def play(
    number: int,
    before: Round | None,
    data: Dataset,
    partition: Partition,
    habits: Habits,
    out: Path,
    progress: Progress | None = None,
) -> Round:
    """Round `number`: each client digests the consensus of the round before, revisits its own images, and answers.

    Source: Li and Wang (2019), algorithm 1, but for its beginning: there every client first trains on the public images
    and their labels, which here nobody has. Round 1 is own images alone. Raises as fit().
    """
    from edgekd.distillation.federation.apps import Reply, Request, exchange

    clients = _clients(data, partition, habits, resume_folder(out), progress)

    def train(request: Request) -> Reply:
        client = clients[request.client - 1]
        network, _ = client.begin()
        if request.state is not None:
            network.load_state_dict(dict(request.state))
        if request.consensus is None:
            loss = client.revisit(network, request.round, habits.first_epochs)
        else:
            client.digest(network, request.consensus, habits.views_seed(request.round - 1))
            loss = client.revisit(network, request.round, habits.own_epochs)
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        return Reply(state, client.answer(network, habits.views_seed(request.round)), loss)

    states = [before.network(c.number).state_dict() if before else None for c in clients]
    known = np.load(before.path / "consensus.npy") if before else None
    made = exchange(train, states, known, first=number)
    np.save(out / "consensus.npy", made.consensus)
    details, scores = _saved(clients, made.states, data, out)
    record = {
        "round": number,
        "losses": list(made.losses),
        "bytes_up": made.bytes_up,
        "bytes_down": made.bytes_down,
        "validation_accuracy": scores,
    }
    rounds = [*(before.metrics["rounds"] if before else []), record]
    return Round.seal(
        out,
        details=details.model_copy(update={"round": number, "views_seed": habits.views_seed(number)}),
        metrics={"rounds": rounds, "validation_accuracy": scores},
    )


def alone(
    rounds: int, data: Dataset, partition: Partition, habits: Habits, out: Path, progress: Progress | None = None
) -> Round:
    """Every client on its own images only, in at least as many steps as it takes in `rounds` rounds."""
    clients = _clients(data, partition, habits, resume_folder(out), progress)
    states = []
    for client in clients:
        network, _ = client.begin()
        client.revisit(network, 0, epochs_alone(rounds, len(client.own), len(client.public), habits))
        states.append(network.state_dict())
    details, scores = _saved(clients, states, data, out)
    return Round.seal(out, details=details, metrics={"validation_accuracy": scores})


def epochs_alone(rounds: int, own: int, public: int, habits: Habits) -> int:
    """Epochs over a client's own images that take no fewer steps than `rounds` rounds."""
    a_step = habits.steps.batch_size
    own_steps, public_steps = max(1, own // a_step), max(1, public // a_step)
    later = rounds - 1
    return habits.first_epochs + later * habits.own_epochs - (-later * habits.public_epochs * public_steps // own_steps)


def _clients(
    data: Dataset, partition: Partition, habits: Habits, folder: Path, progress: Progress | None
) -> list[Client]:
    public = partition.public(data)
    return [
        Client(number, partition.client(number, data), public, data, habits, folder / f"client{number}", progress)
        for number in range(1, len(habits.models) + 1)
    ]


def _saved(
    clients: Sequence[Client], states: Sequence[State], data: Dataset, out: Path
) -> tuple[RoundDetails, list[float]]:
    """Writes the clients' weights; a Round's details of them, and accuracy on validation, which no client ever sees."""
    architectures: list[Architecture] = []
    scores: list[float] = []
    for client, state in zip(clients, states, strict=True):
        network, architecture = client.begin()
        network.load_state_dict(dict(state))
        network.to(best_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        scores.append(accuracy(network, evaluation_loader(data, "validation"), best_device()))
        save_state(network, out / f"client{client.number}.safetensors")
        architectures.append(architecture)
    images = tuple(len(client.own) for client in clients)
    return RoundDetails(architectures=tuple(architectures), images=images), scores
