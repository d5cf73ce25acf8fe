"""A small student for each group of classes, combined into one network for all classes.

Every expert sees all training images and learns the teacher's logits of its own classes, so that it also learns to
give low logits to images of other classes. Logits are compared between experts, so their scale matters, which a loss on
softmaxes does not see: Kim and Choi, Pool of Experts (SIGMOD 2021), add a loss on the scale to theirs for this reason.
Here the objective is the regression of logits (Ba and Caruana 2014) where the recipe has none. Theirs share
a trunk; here each expert is a whole network, which can also be used by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.distill import check_classes as check_teacher
from edgekd.distillation.distill import networks_for, teacher_warnings
from edgekd.distillation.objective import Teacher
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.terms import Seen, Terms, build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.build import build
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.models.edits.experts import Experts
from edgekd.models.weights import load_state
from edgekd.pruning import request as pruning
from edgekd.pruning.request import Request
from edgekd.recipe.settings import ModelSettings, RecipeSettings, Settings, TermSettings
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.schemes._classes import check_disjoint, check_partition, unpublished
from edgekd.schemes._objective import check_on_logits, known_methods, objective_or
from edgekd.stages import _facts
from edgekd.stages import quantize as quantization
from edgekd.stages.distill import Distilled, Guidance, distilled, trained
from edgekd.stages.reparameterize import as_compressed
from edgekd.store.artifacts import Artifact, Json
from edgekd.store.store import resume_folder
from edgekd.training.fit import Callbacks, fit
from edgekd.training.host import best_device
from edgekd.training.start import start
from edgekd.training.train import measured, origin_of, record_of, training_loader

EXPERT = Stage("expert", "Expert", version=2, facts=lambda made: [f"{made.metrics['parameters']:,} parameters"])
EXPERTS = Stage("experts", "Experts, combined", version=2, facts=_facts.network_facts)
SINGLE = Stage("single", "One student of all classes", version=1, facts=_facts.network_facts)
_OBJECTIVE = (TermSettings(method="mse"),)
_WHERE = "groups"


class Parameters(Settings):
    """The groups of classes and the experts' network."""

    groups: Annotated[int, Field(ge=2)] | tuple[tuple[str, ...], ...] = Field(
        description="the classes of each expert, or how many experts share the classes, in their order"
    )
    student: ModelSettings | None = Field(None, description="each expert's network; default: the recipe's student")
    single: bool = Field(True, description="also distil one student of all classes, same steps, to compare")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for groups, losses or sections of the recipe that cannot work with experts."""
    if not isinstance(parameters.groups, int):
        check_disjoint(parameters.groups, _WHERE)
    objective = objective_or(recipe, _OBJECTIVE)
    check_on_logits("task-conditioned", objective, why="experts learn a part of the teacher's logits")
    # Most images are of none of an expert's classes.
    if refused := [method.name for method in known_methods(objective) if method.needs_labels]:
        raise UsageError(
            "an expert has no label for images of other classes",
            found=", ".join(refused),
            allowed="losses on the teacher's logits only, e.g. distill.objective: [{method: mse}]",
        )
    if _expert_of(recipe, parameters).checkpoint is not None:
        raise UsageError(
            "experts must be trained from scratch: a checkpoint has other classes", hint="remove the checkpoint"
        )


def check_classes(parameters: Parameters, classes: tuple[str, ...]) -> None:
    """Raises UsageError where the groups do not hold these classes."""
    groups_of(classes, parameters.groups)


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Build the experts, untrained, and the network that combines them.

    Raises:
        ModelError: they cannot be built, or not be pruned or quantized together as the recipe sets it.
        DataError: too few images to calibrate on.
    """
    model, seen = unpublished(_expert_of(recipe, parameters)), data.details.preprocessing
    groups = groups_of(data.classes, parameters.groups)
    experts = [start(model, seen, group, adopted=False).network for group in groups]
    together = as_compressed(Experts(experts, range(len(data.classes))))
    if recipe.prune is not None:
        pruning.check(Request.of(recipe, recipe.prune), together, seen.shape)
    if recipe.quantize is not None:
        available = data.details.counts["train"]
        quantization.check(together, recipe.quantize.calibration_images, available, seen.shape)


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage per expert, one that combines them, and by default one student of all classes."""
    count = parameters.groups if isinstance(parameters.groups, int) else len(parameters.groups)
    experts = [_expert(run, teacher, data, parameters, number) for number in range(count)]
    named = {f"expert{number}": expert for number, expert in enumerate(experts, 1)}
    student = run.stage(
        EXPERTS,
        Checkpoint,
        settings={},
        inputs={**named, "data": data},
        make=lambda out: combine(experts, data, out),
    )
    recipe, objective = run.recipe, objective_or(run.recipe, _OBJECTIVE)
    if not parameters.single:
        return Distilled(student, objective=objective)
    single = distilled(run, recipe.student, Guidance(teacher, data, objective), recipe.distill, stage=SINGLE)
    return Distilled(student, {SINGLE.name: single}, objective=objective, titles={SINGLE.name: SINGLE.title})


def groups_of(classes: Sequence[str], groups: int | Sequence[Sequence[str]]) -> list[list[str]]:
    """The classes of each expert; a number splits them evenly, in their order.

    Args:
        groups: the classes of each, or how many groups there are.

    Raises:
        UsageError: not every class is in exactly one group, or there are fewer classes than groups.
    """
    if isinstance(groups, int):
        edges = [len(classes) * number // groups for number in range(groups + 1)]
        if groups > len(classes):
            raise UsageError(f"{_WHERE}: more than classes", found=groups, allowed=f"2 to {len(classes)}")
        return [list(classes[start:stop]) for start, stop in zip(edges, edges[1:], strict=False)]
    check_partition(groups, classes, _WHERE)
    return [list(group) for group in groups]


class Conditional(nn.Module):
    """What fit() minimises for an expert: the terms over the teacher's logits of its classes.

    Args:
        columns: (G,) int64, the expert's classes in the teacher's order.
    """

    columns: Tensor

    def __init__(self, teacher: Teacher, terms: Terms, columns: Tensor) -> None:
        super().__init__()
        self.terms = terms
        self._teacher = teacher
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a batch by the names of their terms."""
        wanted = self._teacher(batch).logits.index_select(1, self.columns)
        seen = Seen(student_logits=model(batch.images), teacher_logits=wanted, epoch=batch.epoch)
        losses: dict[str, Tensor] = self.terms(seen)
        return losses


def _expert_of(recipe: RecipeSettings, parameters: Parameters) -> ModelSettings:
    return parameters.student or recipe.student


def _expert(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters, number: int) -> Checkpoint:
    groups, name = parameters.groups, f"expert{number + 1}"
    model = _expert_of(run.recipe, parameters)
    inputs: Mapping[str, Artifact] = {"teacher": teacher, "data": data}
    return trained(
        run,
        replace(EXPERT, name=name, title=f"Expert {number + 1}"),
        run.recipe.distill,
        key={
            "group": [number, groups] if isinstance(groups, int) else list(groups[number]),
            "model": origin_of(model),
            "objective": objective_json(objective_or(run.recipe, _OBJECTIVE)),
        },
        inputs=inputs,
        make=lambda out: _train(run, name, teacher, data, parameters, number, out),
    )


def _train(
    run: Run, name: str, teacher: Checkpoint, data: Dataset, parameters: Parameters, number: int, out: Path
) -> Checkpoint:
    """One expert, on all training images."""
    check_teacher(teacher, data)
    settings, augment = run.recipe.distill, run.recipe.data.augment
    group = groups_of(data.classes, parameters.groups)[number]
    torch.manual_seed(settings.seed)
    begun = start(_expert_of(run.recipe, parameters), data.details.preprocessing, group, adopted=False)
    network = begun.network
    source = Teacher.of(teacher, best_device(), settings.teacher_precision, use_compile=settings.compile)
    objective = objective_or(run.recipe, _OBJECTIVE)
    terms = build_terms(objective, networks_for(network, None, data))
    columns = torch.tensor([data.classes.index(each) for each in group])
    history = fit(
        network,
        Conditional(source, terms, columns),
        training_loader(data, settings, augment),
        settings,
        resume=resume_folder(out),
        callbacks=Callbacks(run.progress(name)),
    )
    return checkpoints.save(
        network,
        begun.architecture,
        preprocessing=data.details.preprocessing,
        classes=tuple(group),
        out=out,
        training=TrainingNotes(
            epochs=settings.epochs, teacher=teacher.digest, objective=objective_json(objective), **begun.note
        ),
        metrics={
            **record_of(history, begun, out, warnings=teacher_warnings(teacher, objective)),
            "teacher_precision": source.precision,
        },
    )


def combine(experts: Sequence[Checkpoint], data: Dataset, out: Path) -> Checkpoint:
    """The experts as one network, their logits in the order of the data's classes. Nothing is trained here.

    Args:
        out: an empty folder, which becomes the checkpoint.

    Raises:
        UsageError: the experts' classes together are not the data's.
    """
    check_partition([expert.classes for expert in experts], data.classes, _WHERE)
    names = [name for expert in experts for name in expert.classes]
    parts = [expert.details.architecture for expert in experts]
    edit: Json = {
        "edit": "experts",
        "experts": [part.model_dump(mode="json") for part in parts],
        "order": [names.index(name) for name in data.classes],
    }
    architecture = parts[0].model_copy(update={"num_classes": len(data.classes), "edits": (edit,)})
    network = build(architecture)
    states = [checkpoints.load(expert).state_dict() for expert in experts]
    named = {f"experts.{i}.{name}": value for i, state in enumerate(states) for name, value in state.items()}
    load_state(network, named, origin="the experts")
    network.to(best_device())
    warnings = list(dict.fromkeys(warning for expert in experts for warning in expert.metrics["warnings"]))
    return checkpoints.save(
        network,
        architecture,
        preprocessing=data.details.preprocessing,
        classes=data.classes,
        out=out,
        training=experts[0].details.training.model_copy(
            update={"groups": [list(expert.classes) for expert in experts]}
        ),
        metrics={**measured(network, data), "warnings": warnings},
    )


SCHEME = Scheme(
    parameters=Parameters,
    distill=distill,
    needs_teacher=True,
    check=check,
    check_classes=check_classes,
    check_networks=check_networks,
)
