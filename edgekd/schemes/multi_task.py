"""One student for several tasks: a shared trunk, a head a task, and for each head a teacher of its own.

Source: Liu, He, Chen and Gao, Improving Multi-Task Deep Neural Networks via Knowledge Distillation for Natural Language
Understanding (2019), for classifiers of images. A task is a grouping of the data's classes (the same images with
coarser labels), or has data of its own. The recipe's `data` and `teacher` are the main task's.

All heads are one wide last layer, and stay together through the chain: pruned and quantized networks go on learning all
tasks, each from its teacher. What ships answers all of them in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from torch import nn

from edgekd import plugins
from edgekd.distillation.objective import Teacher
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.stage import check_classes as check_teacher
from edgekd.distillation.stage import networks_for
from edgekd.distillation.terms import build_terms
from edgekd.errors import UsageError
from edgekd.models.cost import cost
from edgekd.quantization.placement import refuse_quantized
from edgekd.recipe.settings import (
    DataSettings,
    ModelSettings,
    RecipeSettings,
    RecoverySettings,
    Settings,
    TaughtSettings,
    TeacherSettings,
    TermSettings,
)
from edgekd.schemes import Distilled, Links
from edgekd.schemes._classes import check_disjoint, check_partition, relabel, unpublished
from edgekd.schemes._heads import Columns, Head, MultiTask, Together
from edgekd.schemes._objective import check_on_logits
from edgekd.schemes._tasks import Ready, apart, check_data, columns_of, told
from edgekd.store.artifacts import Artifact, Checkpoint, Dataset, Json
from edgekd.training import stages as training
from edgekd.training.fit import BeginEpoch, Progress, accuracy
from edgekd.training.host import best_device
from edgekd.training.stages import evaluation_loader, preprocessing_of, train_with, training_loader
from edgekd.training.start import start

TEACHER = True
VERSION = 3
SAME_CLASSES = False
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]


class Task(Settings):
    """What a head beside the main one learns, and from whom."""

    classes: dict[str, tuple[str, ...]] | None = Field(
        None, description="each class of the task with the data's classes that it means; the images are the same"
    )
    data: DataSettings | None = Field(None, description="images of its own; image_size, mean and std are the recipe's")
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
    for name, section in (("distill", recipe.distill), ("prune", recipe.prune), ("quantize", recipe.quantize)):
        if section is not None:
            check_on_logits("multi-task", section.objective or (), why=why, where=f"{name}.objective")
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
    """Build what is trained here, untrained: the network of all tasks, and the tasks' teachers.

    Raises:
        ModelError: one of them cannot be built.
        DataError: a task's own images cannot be read.
    """
    seen = preprocessing_of(data)
    classes = {name: _classes_of(task) for name, task in parameters.tasks.items()}
    joint = start(unpublished(recipe.student), seen, data.classes, adopted=False, heads=classes).network
    cost(joint, seen.image_size)
    for name, task in parameters.tasks.items():
        guide = start(unpublished(task.teacher), seen, classes[name], adopted=task.teacher.train is None).network
        refuse_quantized(guide, task.teacher.model)
        cost(guide, seen.image_size)


def _classes_of(task: Task) -> tuple[str, ...]:
    if task.classes is not None:
        return tuple(task.classes)
    assert task.data is not None
    return tuple(plugins.load("source", task.data.source).read(task.data).classes)


def distill(links: Links, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    recipe = links.recipe
    tasks = _ready(links, teacher, data, parameters)
    objective = recipe.distill.objective

    def further(
        name: str,
        student: Checkpoint,
        settings: RecoverySettings,
        *,
        said: Json | None = None,
        begin_epoch: BeginEpoch | None = None,
    ) -> Checkpoint:
        lesson = Lesson(settings, settings.objective or objective, begin_epoch)
        return _trained(links, name, student, tasks, lesson, said or {})

    student = _trained(links, "distill", recipe.student, tasks, Lesson(recipe.distill, objective), {})
    heads = {name: tasks[name].data for name in parameters.tasks}
    others: dict[str, Checkpoint] = {}
    if parameters.single:
        others["single"] = links.distilled("single", recipe.student, teacher, data, recipe.distill, objective)
    return Distilled(student, others, further=further, heads=heads)


def _ready(links: Links, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> dict[str, Ready]:
    """Every task's data and teacher, the main one first."""
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
    return tasks


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


@dataclass(frozen=True)
class Lesson:
    """How all heads are trained: the first time, after pruning, or through quantizers."""

    settings: TaughtSettings
    objective: Sequence[TermSettings]
    begin_epoch: BeginEpoch | None = None


def _trained(
    links: Links,
    name: str,
    student: ModelSettings | Checkpoint,
    tasks: Mapping[str, Ready],
    lesson: Lesson,
    said: Json,
) -> Checkpoint:
    """The network of all tasks, as a stage called `name`."""
    main = next(iter(tasks))
    inputs: dict[str, Artifact] = {"data": tasks[main].data, "teacher": tasks[main].teacher}
    if not isinstance(student, ModelSettings):
        inputs["student"] = student
    for task, ready in list(tasks.items())[1:]:
        inputs |= {f"data-{task}": ready.data, f"teacher-{task}": ready.teacher}
    return links.made(
        name,
        version=VERSION,
        settings=lesson.settings,
        said={
            **({"model": training.origin_of(student)} if isinstance(student, ModelSettings) else {}),
            "objective": objective_json(lesson.objective),
            "tasks": [[task, ready.weight, ready.augment.model_dump(mode="json")] for task, ready in tasks.items()],
            **said,
        },
        inputs=inputs,
        make=lambda out: _train(student, tasks, lesson, out, progress=links.progress(name)),
    )


def _train(
    student: ModelSettings | Checkpoint,
    tasks: Mapping[str, Ready],
    lesson: Lesson,
    out: Path,
    *,
    progress: Progress | None,
) -> Checkpoint:
    """All heads on one trunk."""
    settings, device = lesson.settings, best_device()
    main, *further = tasks
    data, columns = tasks[main].data, columns_of(tasks)
    for ready in tasks.values():
        check_teacher(ready.teacher, ready.data)
    guides = {
        name: Teacher.of(ready.teacher, device, settings.teacher_precision, compile=settings.compile)
        for name, ready in tasks.items()
    }

    def over(network: nn.Module) -> MultiTask:
        heads = {}
        for name, ready in tasks.items():
            terms = build_terms(lesson.objective, networks_for(network, None, ready.data))
            heads[name] = Head(guides[name], terms, columns[name], ready.weight, ready.targets(data))
        return MultiTask(heads)

    def measure(network: nn.Module) -> Json:
        return {"tasks": {name: _score(network, columns[name], tasks[name].data) for name in further}}

    loaders = {
        name: training_loader(ready.data, settings, ready.augment)
        for name, ready in tasks.items()
        if name == main or ready.classes is None
    }
    return train_with(
        over,
        student,
        data,
        settings,
        out,
        augment=tasks[main].augment,
        heads={name: tasks[name].data.classes for name in further},
        loader=Together(loaders.pop(main), loaders),
        progress=progress,
        training={"teacher": tasks[main].teacher.digest, "objective": objective_json(lesson.objective)},
        warnings=told(tasks, lesson.objective) if isinstance(student, ModelSettings) else (),
        notes=lambda _: {"teacher_precision": {name: guide.precision for name, guide in guides.items()}},
        measure=measure,
        begin_epoch=lesson.begin_epoch,
    )


def _score(network: nn.Module, columns: slice, data: Dataset) -> float:
    """Of one head, on its task's validation split."""
    return accuracy(Columns(network, columns), evaluation_loader(data, "validation"), best_device())
