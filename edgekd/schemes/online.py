"""Deep mutual learning: several students trained at once, each on the labels and on the others' outputs.

Source: Zhang, Xiang, Hospedales and Lu, Deep Mutual Learning (2018): student i minimises
CE_i + mean over j ≠ i of KL(p_j ‖ p_i), with the others' outputs as constants (no gradient into j).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.distill import networks_for
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build, published_classes
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.models.weights import load_state, read_state, save_state
from edgekd.recipe.settings import (
    ModelSettings,
    RecipeSettings,
    Settings,
    StepSettings,
    TermSettings,
)
from edgekd.runs import Run, Stage
from edgekd.runtime.preprocess import Preprocessing
from edgekd.schemes import Scheme
from edgekd.schemes._objective import Objective, check_on_logits, check_outputs, objective_or
from edgekd.stages import _facts
from edgekd.stages.distill import Distilled, in_words
from edgekd.store.artifacts import Artifact, Details, Json
from edgekd.store.store import resume_folder
from edgekd.training.fit import Callbacks, fit
from edgekd.training.start import Start
from edgekd.training.state import EpochRecord
from edgekd.training.train import (
    TrainingSetup,
    begin,
    evaluation_loader,
    measured,
    origin_of,
    record_of,
    training_loader,
)

TOGETHER = Stage("distill", "Students, trained together", version=2)
STUDENT = Stage("student", "Student", version=2, facts=_facts.network_facts)
# The paper's; the default of distill.objective.
OBJECTIVE = (
    TermSettings.model_validate({"method": "kd", "weight": 1.0, "temperature": 1.0}),
    TermSettings(method="cross_entropy", weight=1.0),
)
_SEEDS_BETWEEN = 1000


class Parameters(Settings):
    """The students beside the recipe's."""

    peers: tuple[ModelSettings, ...] | None = Field(
        None, min_length=1, description="students beside the recipe's; default: one more of the same model"
    )


class PeersDetails(Details):
    """What rebuilds each network, by its role, and how each was trained."""

    architectures: dict[str, Architecture]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    training: dict[str, TrainingNotes]


class Peers(Artifact[PeersDetails]):
    """Networks that were trained together: `student.safetensors`, `student2.safetensors`, … and what rebuilds each."""

    kind = "peers"


class Cohort(nn.Module):
    """Students side by side: (B, C, H, W) to each one's (B, K) logits in training, to the first one's otherwise.

    All of them run every time, so that hooks on the layers (to choose the precision) see those of each.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        logits: list[Tensor] = [network(images) for network in self.networks]
        return logits if self.training else logits[0]


class Mutual(nn.Module):
    """What fit() minimises: for each student the mean of the terms over the others as its teachers.

    The losses are named `student2.kd`: the student and the term.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a batch, scalars by student and term."""
        outputs: list[Tensor] = model(batch.images)
        losses: dict[str, Tensor] = {}
        for own, logits in enumerate(outputs):
            others = [output.detach().float() for other, output in enumerate(outputs) if other != own]
            found = [
                self.terms(Seen(logits, other, batch.targets, batch.indices, epoch=batch.epoch)) for other in others
            ]
            for name in found[0]:
                losses[f"{role_of(own)}.{name}"] = torch.stack([losses_of[name] for losses_of in found]).mean()
        return losses


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for losses on layers or on labels only, and for two students from one checkpoint."""
    objective = objective_or(recipe, OBJECTIVE)
    check_outputs("online", objective)
    check_on_logits("online", objective, why="students that learn from each other have no layers of a finished teacher")
    models = models_of(recipe, parameters)
    for index, model in enumerate(models):
        if model.checkpoint is not None and model in models[:index]:
            raise _twins(model.checkpoint, "leave the checkpoint out, or give each student its own")


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module | None, data: Dataset) -> None:
    """Raises UsageError for two students with the same published weights, down to the last layer."""
    models = models_of(recipe, parameters)
    for index, model in enumerate(models):
        if model.pretrained and model in models[:index] and published_classes(model.model) == len(data.classes):
            raise _twins(f"the published weights of {model.model}", "leave pretrained out, or name another model")


def _twins(found: object, hint: str) -> UsageError:
    return UsageError(
        "two students of the scheme online start from the same weights: they would remain identical",
        found=found,
        hint=hint,
    )


def distill(run: Run, teacher: Checkpoint | None, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage trains all students, then one stage per student writes its checkpoint."""
    recipe = run.recipe
    settings, augment = recipe.distill, recipe.data.augment
    models, objective = models_of(recipe, parameters), objective_or(recipe, OBJECTIVE)
    setup = TrainingSetup(settings, augment, run.progress(TOGETHER.name))
    together = run.stage(
        TOGETHER,
        Peers,
        settings={
            **settings.model_dump(mode="json", include=set(StepSettings.model_fields)),
            "models": [origin_of(model) for model in models],
            "objective": objective_json(objective),
            "augment": augment.model_dump(mode="json"),
        },
        inputs={"data": data},
        make=lambda out: train_together(models, objective, data, setup, out),
    )
    students = {role: _student(run, role, together) for role in map(role_of, range(len(models)))}
    return Distilled(students.pop("student"), students, objective=objective)


def train_together(
    models: Sequence[ModelSettings], objective: Objective, data: Dataset, setup: TrainingSetup, out: Path
) -> Peers:
    """Train students on the same batches, each on the others' outputs.

    The first starts from the weights that it would have if trained by itself with the same seed; the k-th after it
    from those of seed + 1000·k. The setting `clip_norm` bounds the gradient of all of them together.

    Args:
        models: two or more.
        objective: losses on logits.
        data: the training and validation images.
        setup: of the training.
        out: an empty folder, which becomes the artifact.

    Returns:
        All networks, each with its metrics under its role.

    Raises:
        ModelError: a student cannot be built, or its weights do not fit.
        TrainingError: see fit().
    """
    settings = setup.settings
    begun = _begun(models, data, settings.seed)
    networks = [each.network for each in begun]
    cohort = Cohort(networks)
    history = fit(
        cohort,
        Mutual(build_terms(objective, networks_for(cohort, None, data))),
        training_loader(data, settings, setup.augment),
        settings,
        resume=resume_folder(out),
        validation=evaluation_loader(data, "validation"),
        callbacks=Callbacks(setup.progress),
    )
    roles = [role_of(index) for index in range(len(begun))]
    for role, network in zip(roles, networks, strict=True):
        save_state(network, out / f"{role}.safetensors")
    notes: Json = {"epochs": settings.epochs, "objective": objective_json(objective)}
    return Peers.seal(
        out,
        details=PeersDetails(
            architectures={role: each.architecture for role, each in zip(roles, begun, strict=True)},
            preprocessing=data.details.preprocessing,
            classes=data.classes,
            training={role: TrainingNotes(**notes, **each.note) for role, each in zip(roles, begun, strict=True)},
        ),
        metrics={role: _metrics_of(role, each, history, data, out) for role, each in zip(roles, begun, strict=True)},
    )


def models_of(recipe: RecipeSettings, parameters: Parameters) -> tuple[ModelSettings, ...]:
    """All students, the recipe's first."""
    return (recipe.student, *(parameters.peers if parameters.peers is not None else (recipe.student,)))


def role_of(index: int) -> str:
    """A student's role by its index, from 0: student, student2, student3, …"""
    return "student" if index == 0 else f"student{index + 1}"


def _begun(models: Sequence[ModelSettings], data: Dataset, seed: int) -> list[Start]:
    begun = []
    for index, model in enumerate(models):
        torch.manual_seed(seed + _SEEDS_BETWEEN * index)
        begun.append(begin(model, data))
    return begun


def _metrics_of(role: str, begun: Start, history: Sequence[EpochRecord], data: Dataset, out: Path) -> Json:
    """One student's metrics."""
    found = measured(begun.network, data)
    own = _history_of(role, history, found["validation_accuracy"])
    return {**record_of(own, begun, out), **found}


def _history_of(role: str, history: Sequence[EpochRecord], score: float) -> list[EpochRecord]:
    """One student's share of the record; while training only the first one is measured on the validation split."""
    epochs: list[EpochRecord] = []
    for record in history:
        terms = {name.removeprefix(f"{role}."): v for name, v in record.terms.items() if name.startswith(f"{role}.")}
        known = record.validation_accuracy if role == "student" else None
        epochs.append(replace(record, loss=sum(terms.values()), terms=terms, validation_accuracy=known))
    return [*epochs[:-1], replace(epochs[-1], validation_accuracy=score)]


def _student(run: Run, role: str, together: Peers) -> Checkpoint:
    inputs: Mapping[str, Artifact] = {"peers": together}
    return run.stage(
        STUDENT,
        Checkpoint,
        name=role,
        title=in_words(role),
        settings={},
        inputs=inputs,
        make=lambda out: _checkpoint_of(together, role, out),
    )


def _checkpoint_of(together: Peers, role: str, out: Path) -> Checkpoint:
    details, origin = together.details, together.path / f"{role}.safetensors"
    architecture = details.architectures[role]
    network = build(architecture)
    load_state(network, read_state(origin), origin=origin)
    return checkpoints.save(
        network.eval(),
        architecture,
        preprocessing=details.preprocessing,
        classes=details.classes,
        out=out,
        training=details.training[role],
        metrics=together.metrics[role],
    )


SCHEME = Scheme(parameters=Parameters, distill=distill, needs_teacher=False, check=check, check_networks=check_networks)
