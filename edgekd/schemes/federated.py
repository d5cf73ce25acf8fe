"""Clients that keep their own images train a student through their outputs on public images.

The training split is partitioned between clients, evenly or skewed, and a public share whose labels are not used. In
each round every client learns from the consensus of the round before on the public images, then from its own images and
labels, and sends its logits for the public ones; their mean is the new consensus. No weights are sent, so that every
client may have a model of its own: FedMD (Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation,
2019, algorithm 1). After the last round the student is distilled on the public images from the consensus: the server's
step of FedDF (Lin, Kong, Stich and Jaggi, Ensemble Distillation for Robust Model Fusion in Federated Learning, 2020),
which does it after each round and begins with averaged weights, where there are none here.

Here the clients are trained one after another in this process: it estimates what a federation would gain, and what it
would send. The rounds are Flower's (edgekd/distillation/federation/apps.py). No images or weights are sent, but
logits may reveal something about them: nothing is encrypted, and no noise is added.

A `teacher` section is refused. The report's `baseline` learns from all training images and their labels: what
pooling the data would give. The clients are evaluated on the validation split, which no training uses. Pruning's
recovery, calibration and QAD use what the student used: the public images, without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgekd.data.composed import public_part
from edgekd.data.dataset import Dataset
from edgekd.distillation.federation import flower, rounds
from edgekd.distillation.federation.clients import Clients, ClientTraining, consensus_objective, views_seed
from edgekd.distillation.federation.partition import VERSION as PARTITION_VERSION
from edgekd.distillation.federation.partition import Partition, partition
from edgekd.distillation.federation.rounds import Round
from edgekd.distillation.objective_settings import objective_json
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.recipe.settings import ModelSettings, Positive, Ratio, RecipeSettings, Settings, StepSettings
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.schemes._objective import check_on_logits, check_outputs, objective_or
from edgekd.schemes._unlabelled import WITHOUT_LABELS as OBJECTIVE
from edgekd.schemes._unlabelled import check_later_stages, needing_labels
from edgekd.stages import _facts
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import resume_folder
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with, training_loader
from edgekd.wording import counted


def _facts_of_round(made: Round) -> list[str]:
    scores = made.metrics["validation_accuracy"]
    return [f"validation of {len(scores)} clients {min(scores):.2%} to {max(scores):.2%}"]


PARTITION = Stage("partition", "Partition of the images between clients", version=PARTITION_VERSION)
_TITLES = {"client1": "First client", "client1alone": "First client, on its own"}
PUBLIC = Stage("public", "Public images", version=1)
ROUND = Stage("round", "Round", version=rounds.VERSION, facts=_facts_of_round)
ALONE = Stage("alone", "Clients on their own", version=rounds.VERSION, facts=_facts_of_round)
CLIENT = Stage("client", "First client", version=1, facts=_facts.network_facts)


class Parameters(Settings):
    """The clients, their data and their training."""

    clients: Annotated[int, Field(ge=2)] = 3
    rounds: Positive = 5
    first_epochs: Positive = Field(20, description="over a client's own images, before it sends anything")
    local_epochs: Positive = Field(2, description="of a later round, over a client's own images")
    public_epochs: Positive = Field(8, description="of a later round, over the public images, with the consensus")
    public: Ratio = Field(0.3, description="share of the training images that is public, without labels")
    partition: Literal["iid", "dirichlet"] = Field("dirichlet", description="dirichlet: clients have skewed classes")
    alpha: Annotated[float, Field(ge=1e-3, le=1e6)] = Field(
        0.5, description="of dirichlet: 100 is even, 0.1 very skewed"
    )
    views: Positive = Field(4, description="of each public image that the student learns from; each costs as much sent")
    models: tuple[ModelSettings, ...] | None = Field(
        None, min_length=1, description="the clients' models, one for all or one per client; default: the student's"
    )
    alone: bool = Field(True, description="also train every client on its own images only, as many steps, to compare")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for a recipe that federated cannot run, MissingDependencyError without Flower."""
    objective = objective_or(recipe, OBJECTIVE)
    check_on_logits("federated", objective, why="a client sends its logits, not its layers")
    if labelled := needing_labels(objective):
        raise UsageError(
            f"{', '.join(labelled)} needs labels, and the public images of the scheme federated have none",
            hint="leave it out of distill.objective: clients learn from their own labels anyway",
        )
    check_later_stages(recipe, "the public images of the scheme federated have none")
    check_outputs("federated", objective)
    if cold := [term.method for term in objective if term.warmup_epochs > 0.0]:
        raise UsageError(
            f"{', '.join(cold)} would warm up again in every round of federated",
            found="warmup_epochs above 0",
            hint="leave warmup_epochs out of distill.objective",
        )
    if recipe.distill.compile:
        raise UsageError(
            "federated trains its clients for a few epochs per round: "
            "compiling them again each time costs more than it saves",
            hint="remove distill.compile",
        )
    if parameters.models is not None and len(parameters.models) not in (1, parameters.clients):
        raise UsageError(
            "federated has another number of models than of clients",
            found=f"{counted(len(parameters.models), 'model')}, {counted(parameters.clients, 'client')}",
            allowed="one for all clients, or one for each",
        )
    flower()


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage partitions the images, one makes the public data set, one runs each round, one distills the student."""
    flower()
    partitioned = _partitioned(run, data, parameters)
    public = run.stage(
        PUBLIC,
        Dataset,
        settings={},
        inputs={"data": data, "partition": partitioned},
        make=lambda out: public_part(data, partitioned.public_rows, out),
    )
    last = _round(run, data, partitioned, parameters, 1, None)
    for number in range(2, parameters.rounds + 1):
        last = _round(run, data, partitioned, parameters, number, last)
    student = _student(run, public, partitioned, last, parameters.rounds)
    others = {"client1": _first_client(run, "client1", last, public)}
    if parameters.alone:
        alone = _alone(run, data, partitioned, parameters)
        others["client1alone"] = _first_client(run, "client1alone", alone, public)
    return Distilled(student, others, objective=objective_or(run.recipe, OBJECTIVE), learns_from=public, titles=_TITLES)


def _partitioned(run: Run, data: Dataset, parameters: Parameters) -> Partition:
    alpha = parameters.alpha if parameters.partition == "dirichlet" else None
    clients, share, seed = parameters.clients, parameters.public, run.recipe.data.seed
    return run.stage(
        PARTITION,
        Partition,
        settings={"clients": clients, "public": share, "alpha": alpha, "seed": seed},
        inputs={"data": data},
        make=lambda out: partition(data, out, clients=clients, public_share=share, alpha=alpha, seed=seed),
    )


def _training(run: Run, parameters: Parameters, views: int) -> ClientTraining:
    models = parameters.models or (run.recipe.student,)
    return ClientTraining(
        models=models if len(models) > 1 else models * parameters.clients,
        steps=run.recipe.distill,
        objective=objective_or(run.recipe, OBJECTIVE),
        augment=run.recipe.data.augment,
        first_epochs=parameters.first_epochs,
        own_epochs=parameters.local_epochs,
        public_epochs=parameters.public_epochs,
        views=views,
    )


def _key(training: ClientTraining) -> Json:
    """How clients train, for a stage's key: of the recipe's epochs only the share of warm-up counts."""
    steps = training.steps.model_dump(mode="json", include=set(StepSettings.model_fields) - {"epochs", "warmup_epochs"})
    return {
        **steps,
        "warmup": training.steps.warmup_epochs / training.steps.epochs,
        "models": [origin_of(model) for model in training.models],
        "augment": training.augment.model_dump(mode="json"),
        "first_epochs": training.first_epochs,
        "own_epochs": training.own_epochs,
        "public_epochs": training.public_epochs,
    }


def _round(
    run: Run, data: Dataset, partitioned: Partition, parameters: Parameters, number: int, before: Round | None
) -> Round:
    # A client uses no more views than it has epochs: only the student needs all of them.
    final = number == parameters.rounds
    views = parameters.views if final else min(parameters.views, parameters.public_epochs)
    training, name = _training(run, parameters, views), f"round{number}"
    begun: Mapping[str, Artifact] = {"before": before} if before is not None else {}

    def make(out: Path) -> Round:
        clients = Clients(data, partitioned, training, resume_folder(out), run.progress(name))
        return rounds.run_round(number, before, clients, out)

    objective = objective_json(training.objective)
    return run.stage(
        ROUND,
        Round,
        name=name,
        title=f"Round {number}",
        settings={**_key(training), "round": number, "views": views, "objective": objective},
        inputs={**begun, "data": data, "partition": partitioned},
        make=make,
    )


def _alone(run: Run, data: Dataset, partitioned: Partition, parameters: Parameters) -> Round:
    training = _training(run, parameters, views=1)

    def make(out: Path) -> Round:
        clients = Clients(data, partitioned, training, resume_folder(out), run.progress(ALONE.name))
        return rounds.train_without_consensus(parameters.rounds, clients, out)

    return run.stage(
        ALONE,
        Round,
        settings={**_key(training), "rounds": parameters.rounds},
        inputs={"data": data, "partition": partitioned},
        make=make,
    )


def _student(run: Run, public: Dataset, partitioned: Partition, last: Round, number: int) -> Checkpoint:
    """The student on the consensus of the last round, which is round `number`."""
    recipe, settings, augment = run.recipe, run.recipe.distill, run.recipe.data.augment
    objective = objective_or(recipe, OBJECTIVE)

    def make(out: Path) -> Checkpoint:
        consensus = last.consensus
        # The views that the consensus was computed for, not those of the student's own seed.
        shown = settings.model_copy(update={"seed": views_seed(settings.seed, number)})
        return train_with(
            lambda student: consensus_objective(student, consensus, public, objective),
            Learner(recipe.student),
            public,
            TrainingSetup(settings, augment, run.progress(STAGE.name)),
            out,
            loader=training_loader(public, shown, augment, views=len(consensus)),
            record=Record(
                training={"consensus": last.digest, "objective": objective_json(objective)},
                of_objective=lambda _: {"federation": {**partitioned.metrics, **last.metrics}},
            ),
        )

    return trained(
        run,
        STAGE,
        settings,
        key={"scheme": "federated", "model": origin_of(recipe.student), "objective": objective_json(objective)},
        inputs={"data": public, "partition": partitioned, "consensus": last},
        make=make,
    )


def _first_client(run: Run, role: str, origin: Round, public: Dataset) -> Checkpoint:
    def make(out: Path) -> Checkpoint:
        accuracy = origin.metrics["validation_accuracy"][0]
        return checkpoints.save(
            origin.network(1),
            origin.details.architectures[0],
            preprocessing=public.details.preprocessing,
            classes=public.classes,
            out=out,
            training=TrainingNotes(images=origin.details.images[0]),
            metrics={"validation_accuracy": accuracy, "warnings": [], "federation": origin.metrics},
        )

    inputs: Mapping[str, Artifact] = {"clients": origin, "data": public}
    return run.stage(CLIENT, Checkpoint, name=role, title=_TITLES[role], settings={}, inputs=inputs, make=make)


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=False, sees_labels=False, check=check)
