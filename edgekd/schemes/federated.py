"""Clients that keep their images to themselves teach a student through their answers to public images.

The training split is dealt out to clients, evenly or skewed, but for a public share whose labels nobody uses. In each
round every client learns from the consensus of the round before on the public images, then from its own images and
labels, and sends its logits for the public ones; their mean is the new consensus. No weights are sent, so that every
client may have a model of its own: FedMD (Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation,
2019, algorithm 1). After the last round the student is distilled on the public images from the consensus: the server's
step of FedDF (Lin, Kong, Stich and Jaggi, Ensemble Distillation for Robust Model Fusion in Federated Learning, 2020),
which does it after each round and begins with averaged weights, where there are none here.

Here the clients are trained one after another in this process: it shows what a federation would give, and what it would
send. The rounds are Flower apps (edgekd/distillation/federation/apps.py). That no images or weights are sent is no
promise that logits tell nothing about them: nothing is encrypted, and no noise is added.

A `teacher` section is refused. The report's `baseline` learns from all training images and their labels: what
pooling the data would give. The validation split measures the clients; nobody learns from it. Pruning's
recovery, calibration and QAD see what the student saw: the public images, without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from edgekd.data.composed import public_part
from edgekd.data.dataset import Dataset
from edgekd.distillation.federation import flower, rounds
from edgekd.distillation.federation.partition import VERSION as PARTITION_VERSION
from edgekd.distillation.federation.partition import Partition, Shares, partition
from edgekd.distillation.federation.rounds import Habits, Round
from edgekd.distillation.objective_settings import objective_json
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.recipe.settings import (
    ModelSettings,
    Positive,
    Ratio,
    RecipeSettings,
    Settings,
    StepSettings,
    TermSettings,
)
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_answers, check_on_logits, objective_or
from edgekd.schemes._unlabelled import ON_ANSWERS as OBJECTIVE
from edgekd.schemes._unlabelled import check_later_links, needing_labels
from edgekd.stages import _facts
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Artifact, Json
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with, training_loader


def _of_round(played: Round) -> list[str]:
    scores = played.metrics["validation_accuracy"]
    return [f"validation of {len(scores)} clients {min(scores):.2%} to {max(scores):.2%}"]


PARTITION = Stage("partition", "Images dealt out to clients", version=PARTITION_VERSION)
PUBLIC = Stage("public", "Public images", version=1)
ROUND = Stage("round", "Round", version=rounds.VERSION, facts=_of_round)
ALONE = Stage("alone", "Clients on their own", version=rounds.VERSION, facts=_of_round)
CLIENT = Stage("client", "First client", version=1, facts=_facts.network_facts)
_TITLES = {"client1": "First client", "client1alone": "First client, on its own"}


class Parameters(Settings):
    clients: Annotated[int, Field(ge=2)] = 3
    rounds: Positive = 5
    first_epochs: Positive = Field(20, description="over a client's own images, before it sends anything")
    local_epochs: Positive = Field(2, description="of a later round, over a client's own images")
    public_epochs: Positive = Field(8, description="of a later round, over the public images, with the consensus")
    public: Ratio = Field(0.3, description="share of the training images that everybody may see, without labels")
    partition: Literal["iid", "dirichlet"] = Field("dirichlet", description="dirichlet: clients have skewed classes")
    alpha: Annotated[float, Field(gt=0.0)] = Field(0.5, description="of dirichlet: 100 is even, 0.1 very skewed")
    views: Positive = Field(4, description="of each public image that the student learns from; each costs as much sent")
    models: tuple[ModelSettings, ...] | None = Field(
        None, min_length=1, description="the clients' models, one for all or one a client; default: the student's"
    )
    alone: bool = Field(True, description="also train every client on its own images only, as many steps, to compare")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for what makes no sense here, MissingDependencyError without Flower."""
    objective = objective_or(recipe, OBJECTIVE)
    check_on_logits("federated", objective, why="a client sends its answers, not its layers")
    if labelled := needing_labels(objective):
        raise UsageError(
            f"{', '.join(labelled)} needs labels, and the public images of the scheme federated have none",
            hint="leave it out of distill.objective: clients learn from their own labels anyway",
        )
    check_later_links(recipe, "the public images of the scheme federated have none")
    check_answers("federated", objective)
    if cold := [term.method for term in objective if term.warmup_epochs > 0.0]:
        raise UsageError(
            f"{', '.join(cold)} would warm up anew in every round of federated",
            found="warmup_epochs above 0",
            hint="leave warmup_epochs out of distill.objective",
        )
    if recipe.distill.compile:
        raise UsageError(
            "federated trains its clients a few epochs a round: compiling them anew each time costs more than it saves",
            hint="leave distill.compile out",
        )
    if parameters.models is not None and len(parameters.models) not in (1, parameters.clients):
        raise UsageError(
            "federated has another number of models than of clients",
            found=f"{len(parameters.models)} models, {parameters.clients} clients",
            allowed="one for all clients, or one for each",
        )
    flower()


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """A stage deals the images out, one keeps the public ones, one plays each round, one distills the student."""
    flower()
    dealt = _dealt(run, data, parameters)
    public = _public(run, data, dealt)
    last: Round | None = None
    for number in range(1, parameters.rounds + 1):
        last = _round(run, data, dealt, parameters, number, last)
    assert last is not None
    student = _student(run, public, dealt, last)
    others = {"client1": _first_client(run, "client1", last, public)}
    if parameters.alone:
        alone = _alone(run, data, dealt, parameters)
        others["client1alone"] = _first_client(run, "client1alone", alone, public)
    return Distilled(student, others, objective=objective_or(run.recipe, OBJECTIVE), learns_from=public)


def models_of(recipe: RecipeSettings, parameters: Parameters) -> tuple[ModelSettings, ...]:
    """One a client."""
    models = parameters.models if parameters.models is not None else (recipe.student,)
    return models if len(models) == parameters.clients else models * parameters.clients


def _dealt(run: Run, data: Dataset, parameters: Parameters) -> Partition:
    alpha = parameters.alpha if parameters.partition == "dirichlet" else None
    shares = Shares(parameters.clients, parameters.public, alpha, run.recipe.data.seed)
    return run.stage(
        PARTITION,
        Partition,
        settings={"clients": shares.clients, "public": shares.public, "alpha": alpha, "seed": shares.seed},
        inputs={"data": data},
        make=lambda out: partition(data, shares, out),
    )


def _public(run: Run, data: Dataset, dealt: Partition) -> Dataset:
    """All that the student and the links after it may see."""
    return run.stage(
        PUBLIC,
        Dataset,
        settings={},
        inputs={"data": data, "partition": dealt},
        make=lambda out: public_part(data, dealt.public_rows, out),
    )


def _habits(run: Run, parameters: Parameters, views: int) -> Habits:
    recipe = run.recipe
    return Habits(
        models=models_of(recipe, parameters),
        steps=recipe.distill,
        objective=objective_or(recipe, OBJECTIVE),
        augment=recipe.data.augment,
        first_epochs=parameters.first_epochs,
        own_epochs=parameters.local_epochs,
        public_epochs=parameters.public_epochs,
        views=views,
    )


def _said(habits: Habits) -> Json:
    """How clients train, for a stage's key: of the recipe's epochs only the share of warm-up counts."""
    steps = habits.steps.model_dump(mode="json", include=set(StepSettings.model_fields) - {"epochs", "warmup_epochs"})
    return {
        **steps,
        "warmup": habits.steps.warmup_epochs / habits.steps.epochs,
        "models": [origin_of(model) for model in habits.models],
        "augment": habits.augment.model_dump(mode="json"),
        "first_epochs": habits.first_epochs,
        "own_epochs": habits.own_epochs,
        "public_epochs": habits.public_epochs,
    }


def _round(
    run: Run, data: Dataset, dealt: Partition, parameters: Parameters, number: int, before: Round | None
) -> Round:
    final = number == parameters.rounds
    # A client shows itself no more views than it has epochs for: all are asked for the student alone.
    views = parameters.views if final else min(parameters.views, parameters.public_epochs)
    habits, name = _habits(run, parameters, views), f"round{number}"
    begun: Mapping[str, Artifact] = {"before": before} if before is not None else {}
    return run.stage(
        ROUND,
        Round,
        name=name,
        title=f"Round {number}",
        settings={**_said(habits), "round": number, "views": views, "objective": _terms(habits.objective)},
        inputs={**begun, "data": data, "partition": dealt},
        make=lambda out: rounds.play(number, before, data, dealt, habits, out, run.progress(name)),
    )


def _alone(run: Run, data: Dataset, dealt: Partition, parameters: Parameters) -> Round:
    habits = _habits(run, parameters, views=1)
    return run.stage(
        ALONE,
        Round,
        settings={**_said(habits), "rounds": parameters.rounds},
        inputs={"data": data, "partition": dealt},
        make=lambda out: rounds.alone(parameters.rounds, data, dealt, habits, out, run.progress(ALONE.name)),
    )


def _student(run: Run, public: Dataset, dealt: Partition, last: Round) -> Checkpoint:
    recipe = run.recipe
    settings, augment, objective = recipe.distill, recipe.data.augment, objective_or(recipe, OBJECTIVE)

    def make(out: Path) -> Checkpoint:
        consensus = np.load(last.path / "consensus.npy")
        return train_with(
            lambda student: rounds.digesting(student, consensus, public, objective),
            Learner(recipe.student),
            public,
            TrainingSetup(settings, augment, run.progress(STAGE.name)),
            out,
            # The views that the clients were asked about, not those of the student's own seed.
            loader=training_loader(
                public,
                settings.model_copy(update={"seed": last.views_seed}),
                augment,
                views=len(consensus),
            ),
            record=Record(
                training={"consensus": last.digest, "objective": _terms(objective)},
                of_objective=lambda _: {"federation": {**dealt.metrics, **last.metrics}},
            ),
        )

    return trained(
        run,
        STAGE,
        settings,
        key={"scheme": "federated", "model": origin_of(recipe.student), "objective": _terms(objective)},
        inputs={"data": public, "partition": dealt, "consensus": last},
        make=make,
    )


def _first_client(run: Run, role: str, origin: Round, public: Dataset) -> Checkpoint:
    def make(out: Path) -> Checkpoint:
        metrics = origin.metrics
        return checkpoints.save(
            origin.network(1),
            origin.architecture(1),
            preprocessing=public.details.preprocessing,
            classes=public.classes,
            out=out,
            training=TrainingNotes(images=origin.details.images[0]),
            metrics={
                "validation_accuracy": metrics["validation_accuracy"][0],
                "warnings": [],
                "federation": metrics,
            },
        )

    inputs: Mapping[str, Artifact] = {"clients": origin, "data": public}
    return run.stage(CLIENT, Checkpoint, name=role, title=_TITLES[role], settings={}, inputs=inputs, make=make)


def _terms(objective: Sequence[TermSettings]) -> list[Json]:
    return objective_json(objective)


SCHEME = Scheme(Parameters, distill, needs_teacher=False, check=check)
