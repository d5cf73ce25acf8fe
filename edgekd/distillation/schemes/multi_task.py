"""One student for several tasks: a shared trunk, a head a task, and for each head a teacher of its own.

Source: Liu, He, Chen and Gao, Improving Multi-Task Deep Neural Networks via Knowledge Distillation for Natural Language
Understanding (2019), for classifiers of pictures. A task is a grouping of the data's classes (the same pictures with
coarser labels), or has data of its own. The recipe's `data` and `teacher` are the main task's.

All heads are trained in one go, as one wide last layer. What comes out are networks of one task each, with the same
trunk: a head is cut out by its rows. The main one goes on through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import nn

from edgekd import plugins
from edgekd.artifacts import Artifact, Checkpoint, Dataset
from edgekd.distillation.declared import objective_json
from edgekd.distillation.objective import Teacher
from edgekd.distillation.schemes import Distilled, Links
from edgekd.distillation.schemes._classes import check_disjoint, check_partition, relabel, unpublished
from edgekd.distillation.schemes._heads import Head, MultiTask, Together, check_cut, cut_head, joined
from edgekd.distillation.schemes._objective import check_on_logits
from edgekd.distillation.schemes._tasks import Ready, apart, check_data, columns_of, told
from edgekd.distillation.stage import check_classes as check_teacher
from edgekd.distillation.stage import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.cost import cost
from edgekd.quantization.placement import refuse_quantized
from edgekd.settings import (
    DataSettings,
    RecipeSettings,
    Settings,
    TeacherSettings,
)
from edgekd.store import resume_folder
from edgekd.training import stages as training
from edgekd.training.fit import fit
from edgekd.training.host import best_device
from edgekd.training.stages import measured, preprocessing_of, record_of, training_loader
from edgekd.training.start import start

TEACHER = True
VERSION = 2
SAME_CLASSES = False
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]


class Task(Settings):
    """What a head beside the main one learns, and from whom."""

    classes: dict[str, tuple[str, ...]] | None = Field(
        None, description="each class of the task with the data's classes that it means; the pictures are the same"
    )
    data: DataSettings | None = Field(
        None, description="pictures of its own; image_size, mean and std are the recipe's"
    )
    teacher: TeacherSettings
    weight: Annotated[float, Field(gt=0.0)] = Field(1.0, description="of its losses; the main task's is 1")

    @model_validator(mode="after")
    def _one_origin(self) -> Task:
        if (self.classes is None) == (self.data is None):
            raise ValueError("a task has either classes (groups of the data's) or data of its own: name one of them")
        return self


class Parameters(Settings):
    tasks: dict[Name, Task] = Field(min_length=1, description="those beside the main one, by name")
    main: Name = Field("main", description="the name of the task that the recipe's data and teacher are for")
    single: bool = Field(True, description="also distil a student of the main task alone, same steps, to compare")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for tasks, losses or a student that cannot be trained together."""
    why = "each head has another teacher, and the trunk cannot resemble them all"
    check_on_logits("multi-task", recipe.distill.objective, why=why)
    if parameters.main in parameters.tasks:
        raise UsageError(f"two tasks are called {parameters.main}", hint="main: names the recipe's own task")
    if recipe.student.checkpoint is not None:
        raise UsageError("a student of several tasks begins anew", hint="leave student.checkpoint out")
    for name, task in parameters.tasks.items():
        if task.classes is not None:
            check_disjoint(list(task.classes.values()), f"tasks.{name}.classes")
        if task.data is not None:
            check_data(f"tasks.{name}.data", task.data, recipe.data)


def check_classes(parameters: Parameters, classes: tuple[str, ...]) -> None:
    """Raises UsageError where a task's groups are none of the data's classes."""
    for name, task in parameters.tasks.items():
        if task.classes is not None:
            check_partition(list(task.classes.values()), classes, f"tasks.{name}.classes")


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Build what is trained here, untrained: the joint network and its parts, and the tasks' teachers.

    Raises:
        ModelError: the student cannot be cut into heads, or a teacher cannot be built for its task.
        DataError: a task's own pictures cannot be read.
    """
    seen = preprocessing_of(data)
    classes = {parameters.main: data.classes, **{name: _classes_of(task) for name, task in parameters.tasks.items()}}
    check_cut(unpublished(recipe.student), seen, classes)
    for name, task in parameters.tasks.items():
        guide = start(unpublished(task.teacher), seen, classes[name], adopted=task.teacher.train is None).network
        refuse_quantized(guide, task.teacher.model)
        cost(guide, seen.image_size)


def _classes_of(task: Task) -> tuple[str, ...]:
    if task.classes is not None:
        return tuple(task.classes)
    assert task.data is not None
    return tuple(plugins.load("dataset", task.data.source).read(task.data).classes)


def distill(links: Links, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    augment = links.recipe.data.augment
    tasks = {parameters.main: Ready(data, teacher, 1.0, None, augment)}
    prepared = {name: _data(links, name, task, data) for name, task in parameters.tasks.items()}
    photos = {name: prepared[name] for name, task in parameters.tasks.items() if task.data is not None}
    for name, task in parameters.tasks.items():
        own, varied = prepared[name], task.data.augment if task.data is not None else augment
        if name in photos:
            own = _apart(links, name, own, parameters.main, {parameters.main: data, **photos})
        guide = links.taught(f"teacher-{name}", task.teacher, own, augment=varied, main=data)
        tasks[name] = Ready(own, guide, task.weight, task.classes, varied)
    joint = _joint(links, tasks)
    others = {name: _head(links, joint, name, tasks, stage=f"task-{name}") for name in parameters.tasks}
    student = _head(links, joint, parameters.main, tasks, stage="distill", others=others)
    if not parameters.single:
        return Distilled(student)
    recipe = links.recipe
    single = links.distilled("single", recipe.student, teacher, data, recipe.distill, recipe.distill.objective)
    return Distilled(student, {"single": single})


def _data(links: Links, name: str, task: Task, data: Dataset) -> Dataset:
    if task.data is not None:
        return links.prepared(f"data-{name}", task.data)
    assert task.classes is not None
    groups = task.classes
    return links.store.stage(
        Dataset,
        f"data-{name}",
        version=VERSION,
        settings={"classes": [[group, list(names)] for group, names in groups.items()]},
        inputs={"data": data},
        make=lambda out: relabel(data, groups, out, where=f"tasks.{name}.classes"),
    )


def _apart(links: Links, name: str, own: Dataset, main: str, all_data: Mapping[str, Dataset]) -> Dataset:
    others = {other: data for other, data in all_data.items() if other != name}
    return links.store.stage(
        Dataset,
        f"apart-{name}",
        version=VERSION,
        settings={"task": name, "main": main, "others": list(others)},
        inputs={"data": own, **{f"data-{other}": data for other, data in others.items()}},
        make=lambda out: apart(name, own, main, others, out),
    )


def _joint(links: Links, tasks: Mapping[str, Ready]) -> Checkpoint:
    """The network of all tasks; its classes are named `task: class`, and its logits are the heads' side by side."""
    recipe, main = links.recipe, next(iter(tasks))
    inputs: dict[str, Artifact] = {"data": tasks[main].data, "teacher": tasks[main].teacher}
    for name, ready in list(tasks.items())[1:]:
        inputs |= {f"data-{name}": ready.data, f"teacher-{name}": ready.teacher}
    return links.made(
        "multi-task",
        version=VERSION,
        settings=recipe.distill,
        said={
            "model": training.origin_of(recipe.student),
            "objective": objective_json(recipe.distill.objective),
            "tasks": [[name, ready.weight, ready.augment.model_dump(mode="json")] for name, ready in tasks.items()],
        },
        inputs=inputs,
        make=lambda out: _train(links, tasks, out),
    )


def _train(links: Links, tasks: Mapping[str, Ready], out: Path) -> Checkpoint:
    """All heads on one trunk."""
    settings, device = links.recipe.distill, best_device()
    main = next(iter(tasks.values())).data
    columns = columns_of(tasks)
    torch.manual_seed(settings.seed)
    classes = joined({name: ready.data.classes for name, ready in tasks.items()})
    begun = start(links.recipe.student, preprocessing_of(main), classes, adopted=False)
    network = begun.network
    heads: dict[str, Head] = {}
    guides: dict[str, Teacher] = {}
    for name, ready in tasks.items():
        check_teacher(ready.teacher, ready.data)
        terms = build_terms(settings.objective, networks_for(network, None, ready.data))
        guides[name] = Teacher.of(ready.teacher, device, settings.teacher_precision)
        heads[name] = Head(guides[name], terms, columns[name], ready.weight, ready.targets(main))
    loaders = {
        name: training_loader(ready.data, settings, ready.augment)
        for name, ready in tasks.items()
        if ready.data is main or ready.classes is None
    }
    own = next(iter(loaders))
    history = fit(
        network,
        MultiTask(heads),
        Together(loaders.pop(own), loaders),
        settings,
        resume=resume_folder(out),
        progress=links.progress("multi-task"),
    )
    return checkpoints.save(
        network,
        begun.architecture,
        preprocessing=preprocessing_of(main),
        classes=classes,
        out=out,
        training={
            "epochs": settings.epochs,
            **begun.note,
            "teacher": next(iter(tasks.values())).teacher.digest,
            "objective": objective_json(settings.objective),
        },
        metrics={
            **record_of(history, begun, out, warnings=told(tasks, settings.objective)),
            "teacher_precision": {name: guide.precision for name, guide in guides.items()},
        },
    )


def _head(
    links: Links,
    joint: Checkpoint,
    name: str,
    tasks: Mapping[str, Ready],
    *,
    stage: str,
    others: Mapping[str, Checkpoint] | None = None,
) -> Checkpoint:
    """The network of one task, measured on its own validation pictures; it also tells how the others do on theirs."""
    data, beside = tasks[name].data, dict(others or {})

    def make(out: Path) -> Checkpoint:
        network, architecture = cut_head(joint, columns_of(tasks)[name])
        network.to(best_device())
        return checkpoints.save(
            network,
            architecture,
            preprocessing=preprocessing_of(data),
            classes=data.classes,
            out=out,
            training={
                **joint.manifest.details["training"],
                "teacher": tasks[name].teacher.digest,
                "tasks": list(tasks),
            },
            metrics={
                **{key: joint.metrics[key] for key in ("history", "warnings", "pace", "teacher_precision")},
                **measured(network, data),
                "tasks": {other: head.metrics["validation_accuracy"] for other, head in beside.items()},
            },
        )

    return links.store.stage(
        Checkpoint,
        stage,
        version=VERSION,
        settings={"task": name, "tasks": list(tasks)},
        inputs={
            "joint": joint,
            **{f"data-{each}": ready.data for each, ready in tasks.items()},
            **{f"task-{each}": head for each, head in beside.items()},
        },
        make=make,
    )
