"""One student for several tasks: a shared trunk, one head per task, and for each head its own teacher.

Source: Liu, He, Chen and Gao, Improving Multi-Task Deep Neural Networks via Knowledge Distillation for Natural Language
Understanding (2019), for classifiers of images. A task is a grouping of the data's classes (the same images with
coarser labels), or has its own data. The recipe's `data` and `teacher` are the main task's.

All heads are one wide last layer, and stay together through the chain: pruned and quantized networks are trained
further on all tasks, each with its teacher. The exported network gives the outputs of all tasks in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator
from torch import nn

from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.distillation.objective_settings import objective_json
from edgekd.errors import UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.models.cost import cost
from edgekd.quantization.placement import refuse_quantized
from edgekd.recipe.settings import (
    Data,
    ModelSettings,
    RecipeSettings,
    RecoverySettings,
    Settings,
    TeacherSettings,
)
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.schemes._classes import check_disjoint, check_partition, relabel, unpublished
from edgekd.schemes._heads import DistillationArguments, train_heads
from edgekd.schemes._objective import check_on_logits
from edgekd.schemes._tasks import Ready, check_data, without_shared_images
from edgekd.stages import _facts
from edgekd.stages.data import prepared
from edgekd.stages.distill import STAGE, Distilled, Guidance, distilled, trained
from edgekd.stages.train import teacher_stage
from edgekd.store.artifacts import Artifact, Json
from edgekd.training import train as training
from edgekd.training.fit import BeginEpoch
from edgekd.training.start import start

GROUPED = Stage("data", "Data of a task", version=3)
APART = Stage("apart", "Data of a task without the other tasks' evaluation images", version=3)
SINGLE = Stage("single", "Student of the main task only", version=1, facts=_facts.network_facts)
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]


class Task(Settings):
    """A task beside the main one: its labels or images, and its teacher."""

    classes: dict[str, tuple[str, ...]] | None = Field(
        None, description="each class of the task with the data's classes that it means; the images are the same"
    )
    data: Data | None = Field(None, description="its own images; image_size, mean and std are the recipe's")
    teacher: TeacherSettings
    weight: Annotated[float, Field(gt=0.0, le=1e9)] = Field(1.0, description="of its losses; the main task's is 1")

    @model_validator(mode="after")
    def _one_origin(self) -> Task:
        if (self.classes is None) == (self.data is None):
            raise ValueError("a task has either classes (groups of the data's) or its own data: set one of them")
        return self


class Parameters(Settings):
    """The tasks beside the main one."""

    tasks: dict[Name, Task] = Field(min_length=1, description="those beside the main one, by name")
    main: Name = Field("main", description="the name of the task that the recipe's data and teacher are for")
    single: bool = Field(True, description="also distil a student of the main task only, same steps, to compare")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError for tasks, losses or a student that cannot be trained together."""
    why = "each head has another teacher, and the trunk cannot resemble them all"
    for section, objective in recipe.objectives.items():
        check_on_logits("multi-task", objective, why=why, where=f"{section}.objective")
    if parameters.main in parameters.tasks:
        raise UsageError(
            f"two tasks are called {parameters.main}",
            hint="choose another name for one of them; distill.scheme.main names the recipe's own task",
        )
    if recipe.student.checkpoint is not None:
        raise UsageError("a student of several tasks must be trained from scratch", hint="remove student.checkpoint")
    for name, task in parameters.tasks.items():
        if task.classes is not None:
            check_disjoint(list(task.classes.values()), f"tasks.{name}.classes")
        if task.data is not None:
            if task.data.task == "multilabel":
                raise UsageError(f"tasks.{name}.data.task: a head of multi-task needs images of exactly one class")
            check_data(f"tasks.{name}.data", task.data, recipe.data)


def check_classes(parameters: Parameters, classes: tuple[str, ...]) -> None:
    """Raises UsageError where a task's groups do not hold the data's classes."""
    for name, task in parameters.tasks.items():
        if task.classes is not None:
            check_partition(list(task.classes.values()), classes, f"tasks.{name}.classes")


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Build what is trained here, untrained: the network of all tasks, and the tasks' teachers.

    Raises:
        ModelError: one of them cannot be built.
        DataError: a task's own images cannot be read.
    """
    seen = data.details.preprocessing
    classes = {name: _classes_of(task) for name, task in parameters.tasks.items()}
    joint = start(unpublished(recipe.student), seen, data.classes, adopted=False, heads=classes).network
    cost(joint, seen.shape)
    for name, task in parameters.tasks.items():
        untrained = start(unpublished(task.teacher), seen, classes[name], adopted=task.teacher.train is None).network
        refuse_quantized(untrained, task.teacher.model)
        cost(untrained, seen.shape)


def _classes_of(task: Task) -> tuple[str, ...]:
    if task.classes is not None:
        return tuple(task.classes)
    assert task.data is not None
    return source_named(task.data.source).read(task.data).classes


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """Stages for each task's data and teacher, then one that trains all heads together."""
    recipe = run.recipe
    tasks = _ready(run, teacher, data, parameters)
    objective = recipe.distill.objective

    def continue_training(
        stage: Stage,
        student: Checkpoint,
        settings: RecoverySettings,
        *,
        key: Json | None = None,
        begin_epoch: BeginEpoch | None = None,
    ) -> Checkpoint:
        arguments = DistillationArguments(settings, settings.objective or objective, begin_epoch)
        return _trained(run, stage, student, tasks, arguments, key or {})

    student = _trained(run, STAGE, recipe.student, tasks, DistillationArguments(recipe.distill, objective), {})
    heads = {name: tasks[name].data for name in parameters.tasks}
    others: dict[str, Checkpoint] = {}
    if parameters.single:
        others[SINGLE.name] = distilled(
            run, recipe.student, Guidance(teacher, data, objective), recipe.distill, stage=SINGLE
        )
    titles = {SINGLE.name: SINGLE.title}
    return Distilled(student, others, train=continue_training, heads=heads, titles=titles)


def _ready(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> dict[str, Ready]:
    """Every task's data and teacher, the main one first."""
    augment = run.recipe.data.augment
    tasks = {parameters.main: Ready(data, teacher, 1.0, None, augment)}
    prepared = {name: _data(run, name, task, data) for name, task in parameters.tasks.items()}
    own_images = {name: prepared[name] for name, task in parameters.tasks.items() if task.data is not None}
    for name, task in parameters.tasks.items():
        own, varied = prepared[name], task.data.augment if task.data is not None else augment
        if name in own_images:
            own = _apart(run, name, own, parameters.main, {parameters.main: data, **own_images})
        own_teacher = teacher_stage(run, f"teacher-{name}", task.teacher, own, augment=varied)
        tasks[name] = Ready(own, own_teacher, task.weight, task.classes, varied)
    return tasks


def _data(run: Run, name: str, task: Task, data: Dataset) -> Dataset:
    if task.data is not None:
        return prepared(run, f"data-{name}", task.data, title=f"Data of {name}")
    assert task.classes is not None
    groups = task.classes
    return run.stage(
        GROUPED,
        Dataset,
        name=f"data-{name}",
        title=f"Data of {name}",
        settings={"classes": [[group, list(names)] for group, names in groups.items()]},
        inputs={"data": data},
        make=lambda out: relabel(data, groups, out, where=f"tasks.{name}.classes"),
    )


def _apart(run: Run, name: str, own: Dataset, main: str, all_data: Mapping[str, Dataset]) -> Dataset:
    others = {other: data for other, data in all_data.items() if other != name}
    return run.stage(
        APART,
        Dataset,
        name=f"apart-{name}",
        title=f"Data of {name} without the other tasks' evaluation images",
        settings={"task": name, "main": main, "others": list(others)},
        inputs={"data": own, **{f"data-{other}": data for other, data in others.items()}},
        make=lambda out: without_shared_images(name, own, main, others, out),
    )


def _trained(
    run: Run,
    stage: Stage,
    student: ModelSettings | Checkpoint,
    tasks: Mapping[str, Ready],
    arguments: DistillationArguments,
    key: Json,
) -> Checkpoint:
    """The network of all tasks, as one stage."""
    main = next(iter(tasks))
    inputs: dict[str, Artifact] = {"data": tasks[main].data, "teacher": tasks[main].teacher}
    if not isinstance(student, ModelSettings):
        inputs["student"] = student
    for task, ready in list(tasks.items())[1:]:
        inputs |= {f"data-{task}": ready.data, f"teacher-{task}": ready.teacher}
    return trained(
        run,
        stage,
        arguments.settings,
        key={
            **({"model": training.origin_of(student)} if isinstance(student, ModelSettings) else {}),
            "objective": objective_json(arguments.objective),
            "tasks": [[task, ready.weight, ready.augment.model_dump(mode="json")] for task, ready in tasks.items()],
            **key,
        },
        inputs=inputs,
        make=lambda out: train_heads(student, tasks, arguments, out, progress=run.progress(stage.name)),
    )


SCHEME = Scheme(
    parameters=Parameters,
    distill=distill,
    needs_teacher=True,
    same_classes=False,
    check=check,
    check_classes=check_classes,
    check_networks=check_networks,
)
