"""One student for several tasks: a shared trunk, a head a task, and for each head a teacher of its own.

Source: Liu, He, Chen and Gao, Improving Multi-Task Deep Neural Networks via Knowledge Distillation for Natural Language
Understanding (2019), for classifiers of pictures. A task is a grouping of the data's classes (the same pictures with
coarser labels), or has data of its own. The recipe's `data` and `teacher` are the main task's.

All heads are trained in one go, as one wide last layer. What comes out are networks of one task each, with the same
trunk: a head is cut out by its rows. The main one goes on through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from edgekd.artifacts import Artifact, Checkpoint, Dataset, Json
from edgekd.distillation.objective import Teacher
from edgekd.distillation.schemes import Distilled, Links
from edgekd.distillation.schemes._classes import check_disjoint, check_partition, fresh, relabel
from edgekd.distillation.schemes._heads import Head, MultiTask, Together, cut_head
from edgekd.distillation.schemes._objective import check_on_logits
from edgekd.distillation.stage import check_classes as check_teacher
from edgekd.distillation.stage import doubts, networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.settings import AugmentSettings, DataSettings, RecipeSettings, Settings, TeacherSettings
from edgekd.store import resume_folder
from edgekd.training import stages as training
from edgekd.training.fit import accuracy, fit
from edgekd.training.host import best_device
from edgekd.training.stages import evaluation_loader, preprocessing_of, training_loader

TEACHER = True
VERSION = 1
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
            _check_data(f"tasks.{name}.data", task.data, recipe.data)


def _check_data(where: str, own: DataSettings, main: DataSettings) -> None:
    if own.preprocessing != main.preprocessing:
        raise UsageError(
            f"{where}: all tasks' pictures go into one network, and must be prepared alike",
            found=own.preprocessing,
            allowed=main.preprocessing,
        )
    drawn = [{key: getattr(each, key) for key in ("validation", "test", "seed")} for each in (own, main)]
    if (own.source, own.root) == (main.source, main.root) and drawn[0] != drawn[1]:
        raise UsageError(
            f"{where}: the same pictures, split otherwise: some that test one task would train another",
            found=drawn[0],
            allowed=f"{drawn[1]}, as the recipe's data",
        )


def check_classes(parameters: Parameters, classes: tuple[str, ...]) -> None:
    """Raises UsageError where a task's groups are none of the data's classes."""
    for name, task in parameters.tasks.items():
        if task.classes is not None:
            check_partition(list(task.classes.values()), classes, f"tasks.{name}.classes")


def distill(links: Links, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    augment = links.recipe.data.augment
    tasks = {parameters.main: Ready(data, teacher, 1.0, None, augment)}
    for name, task in parameters.tasks.items():
        own, varied = _data(links, name, task, data), task.data.augment if task.data is not None else augment
        guide = _teacher(links, name, task.teacher, own, varied)
        tasks[name] = Ready(own, guide, task.weight, task.classes, varied)
    joint = _joint(links, tasks)
    others = {name: _head(links, joint, name, tasks, stage=f"task-{name}") for name in parameters.tasks}
    student = _head(links, joint, parameters.main, tasks, stage="distill", others=others)
    if not parameters.single:
        return Distilled(student)
    recipe = links.recipe
    single = links.distilled("single", recipe.student, teacher, data, recipe.distill, recipe.distill.objective)
    return Distilled(student, {"single": single})


@dataclass(frozen=True)
class Ready:
    """A task whose data and teacher are made; `classes` where its labels are groups of the main one's."""

    data: Dataset
    teacher: Checkpoint
    weight: float
    classes: Mapping[str, Sequence[str]] | None
    augment: AugmentSettings

    def targets(self, main: Dataset) -> Tensor | None:
        """(C,) int64: for each of the main task's classes the task's own; None where the labels are its own."""
        if self.classes is None:
            return None
        of = {name: group for group, names in enumerate(self.classes.values()) for name in names}
        return torch.tensor([of[name] for name in main.classes])


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


def _teacher(links: Links, name: str, settings: TeacherSettings, data: Dataset, augment: AugmentSettings) -> Checkpoint:
    """As links.taught, which would build the recipe's networks for this task's classes first."""
    stage, steps = f"teacher-{name}", settings.train
    said: Json = {"model": training.origin_of(settings)}
    if steps is not None:
        said |= {**steps.model_dump(mode="json"), "augment": augment.model_dump(mode="json")}

    def make(out: Path) -> Checkpoint:
        if steps is None:
            return training.adopt(settings, data, out)
        return training.train(settings, data, steps, out, augment=augment, progress=links.progress(stage))

    return links.store.stage(
        Checkpoint, stage, version=training.VERSION, settings=said, inputs={"data": data}, make=make
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
            "objective": [term.model_dump(mode="json") for term in recipe.distill.objective],
            "tasks": [[name, ready.weight, ready.augment.model_dump(mode="json")] for name, ready in tasks.items()],
        },
        inputs=inputs,
        make=lambda out: _train(links, tasks, out),
    )


def _columns(tasks: Mapping[str, Dataset]) -> dict[str, slice]:
    """Where each task's logits stand in the joint network's."""
    ends = np.cumsum([0, *(len(data.classes) for data in tasks.values())]).tolist()
    return {name: slice(start, stop) for name, start, stop in zip(tasks, ends, ends[1:], strict=False)}


def _train(links: Links, tasks: Mapping[str, Ready], out: Path) -> Checkpoint:
    """All heads on one trunk."""
    settings, device = links.recipe.distill, best_device()
    main = next(iter(tasks.values())).data
    columns = _columns({name: ready.data for name, ready in tasks.items()})
    torch.manual_seed(settings.seed)
    network, architecture = fresh(links.recipe.student, main, sum(len(ready.data.classes) for ready in tasks.values()))
    heads: dict[str, Head] = {}
    for name, ready in tasks.items():
        check_teacher(ready.teacher, ready.data)
        terms = build_terms(settings.objective, networks_for(network, None, ready.data))
        guide = Teacher.of(ready.teacher, device)
        heads[name] = Head(guide, terms, columns[name], ready.weight, ready.targets(main))
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
        architecture,
        preprocessing=preprocessing_of(main),
        classes=tuple(f"{name}: {each}" for name, ready in tasks.items() for each in ready.data.classes),
        out=out,
        training={
            "epochs": settings.epochs,
            "teacher": next(iter(tasks.values())).teacher.digest,
            "objective": [term.model_dump(mode="json") for term in settings.objective],
        },
        metrics={
            "history": [asdict(record) for record in history],
            "warnings": list(
                dict.fromkeys(doubt for ready in tasks.values() for doubt in doubts(ready.teacher, settings.objective))
            ),
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
        network, architecture = cut_head(joint, _columns({each: ready.data for each, ready in tasks.items()})[name])
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
                **{key: joint.metrics[key] for key in ("history", "warnings")},
                "validation_accuracy": accuracy(network, evaluation_loader(data, "validation"), best_device()),
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
