"""A teacher's soft labels for images that have none.

Each step shows labelled and unlabelled images in one batch; the teacher sees the same view as the
student. Terms that need labels use the labelled images only. The unlabelled ones can be filtered by the teacher's
confidence and balanced by its classes (Xie et al., Self-training with Noisy Student, 2020, section 3.1). With
`mix: true` student and teacher see the same mixtures of images and no label is used: function matching (Beyer et al.,
Knowledge distillation: A good teacher is patient and consistent, 2022, section 3).

Which images have labels is set in one of these ways:

    labels: 200                     200 training images, classes in proportion; the rest of them is unlabelled
    labels: 200, unlabelled: folder 200 training images; the folder's images are unlabelled, the rest is not used
    unlabelled: folder              all training images; the folder's are unlabelled
    data.limit, without labels      those that the limit keeps; those that it leaves out are unlabelled
    labels: 0                       none: function matching

A teacher with `train` learns from all training images of `data`, so that it has seen more labels than `labels` gives:
the usual case is a checkpoint that was trained elsewhere. With `data.limit` it sees the limited ones only.

Pruning's recovery and QAD see all training images of `data`. Where `labels` or `mix` hide labels, they learn from the
teacher's outputs only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from edgekd.data import unlabelled as folders
from edgekd.data.balance import counts_of
from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.data.sources.unlabelled import content_of
from edgekd.distillation import distill as stage
from edgekd.distillation.method import method_named
from edgekd.distillation.objective import Distillation, Teacher
from edgekd.distillation.objective_settings import objective_json
from edgekd.distillation.partly_labelled import PartlyLabelled
from edgekd.distillation.terms import Networks, build_terms
from edgekd.errors import UsageError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.base import LaxPath, not_empty
from edgekd.recipe.settings import RecipeSettings, Settings, Share
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme, _selection
from edgekd.schemes._selection import Criteria, Selection
from edgekd.schemes._unlabelled import check_later_stages, needing_labels, without_labels
from edgekd.stages import _facts
from edgekd.stages.data import prepared
from edgekd.stages.distill import STAGE, Distilled, trained
from edgekd.store.artifacts import Artifact, Json
from edgekd.training.compiling import Forward
from edgekd.training.host import best_device
from edgekd.training.objective import Supervised
from edgekd.training.train import Learner, Record, TrainingSetup, origin_of, train_with, training_loader

LABELS_ONLY = Stage("labelsonly", "Labels only", version=1, facts=_facts.network_facts)
POOL = Stage("unlabelled", "Unlabelled images", version=folders.VERSION)
SELECTION = Stage("selection", "Selection", version=_selection.VERSION)


def _rest_or_folder(value: Any) -> Any:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"must be rest, or a folder of images; found: {json.dumps(value)}")
    return not_empty(value)


class Parameters(Settings):
    """Which images have labels, and how the others are selected."""

    labels: Annotated[int, Field(ge=0)] | None = Field(
        None, description="training images that keep their label, classes in proportion; default: all"
    )
    unlabelled: Annotated[Literal["rest"] | LaxPath, BeforeValidator(_rest_or_folder)] = Field(
        "rest", union_mode="left_to_right", description="rest of the training images, or a folder of images"
    )
    share: Share = Field(0.25, description="of labelled images in an epoch, at least; they are repeated to reach it")
    confidence: Share = Field(0.3, description="the teacher's top probability, below which an image is left out")
    balance: bool = Field(False, description="equally many unlabelled images of each class that the teacher predicts")
    mix: bool = Field(False, description="mixtures of images, the same for teacher and student, without labels")
    alone: bool = Field(True, description="also train the student on the labelled images only, same steps")


def check(recipe: RecipeSettings, parameters: Parameters) -> None:
    """Raises UsageError if no image is unlabelled, or a term needs labels that are not used."""
    if parameters.unlabelled == "rest" and parameters.labels is None and recipe.data.limit is None:
        raise UsageError(
            "semi-supervised has no unlabelled images: every training image keeps its label",
            hint="set labels: how many of them have one, or unlabelled: a folder of images, or data.limit",
        )
    if isinstance(parameters.unlabelled, Path) and not parameters.unlabelled.is_dir():
        raise UsageError(f"unlabelled: {parameters.unlabelled} is not a folder", allowed="rest, or a folder of images")
    methods = [term.method for term in recipe.distill.objective]
    with_labels = needing_labels(recipe.distill.objective)
    if with_labels and (parameters.mix or parameters.labels == 0):
        reason = "mix" if parameters.mix else "labels: 0"
        raise UsageError(
            f"{', '.join(with_labels)} needs labels, and with {reason} there are none",
            hint="name losses on the teacher's outputs only: distill.objective: [{method: kd}]",
        )
    if len(with_labels) == len(methods):
        raise UsageError(
            "the objective learns nothing from unlabelled images: all of its losses need labels",
            found=", ".join(with_labels),
            hint="add one on the teacher's outputs, e.g. kd",
        )
    if remembering := [name for name in methods if "indices" in method_named(name).inputs]:
        raise UsageError(
            f"{', '.join(remembering)} stores single images, but semi-supervised shows some of them twice",
            hint="remove it from distill.objective",
        )
    if _hides_labels(parameters):
        check_later_stages(recipe, "semi-supervised hides those of most images")


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Raises DataError where `labels` does not fit the data."""
    _selection.check_labels(parameters.labels, len(data.classes), data.details.counts["train"])


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """Stages for the unlabelled images, their selection, the student, and one on the labelled images only."""
    pool = _pool(run, data, parameters)
    selection = _selected(run, teacher, data, pool, parameters)
    recipe, settings = run.recipe, run.recipe.distill
    sources: Mapping[str, Artifact] = {"data": data, "selection": selection, **({"pool": pool} if pool else {})}
    key: Json = {"model": origin_of(recipe.student), "share": parameters.share}

    def make(out: Path) -> Checkpoint:
        return _student(run, teacher, data, pool, selection, parameters, out)

    student = trained(
        run,
        STAGE,
        settings,
        key={**key, "mix": parameters.mix, "objective": objective_json(settings.objective)},
        inputs={"teacher": teacher, **sources},
        make=make,
    )
    later = without_labels(settings.objective) if _hides_labels(parameters) else None
    if not parameters.alone or parameters.labels == 0:
        return Distilled(student, objective=later)
    labels_only = trained(
        run,
        LABELS_ONLY,
        settings,
        key=key,
        inputs=sources,
        make=lambda out: _labels_only(run, data, pool, selection, parameters, out),
    )
    titles = {LABELS_ONLY.name: LABELS_ONLY.title}
    return Distilled(student, {LABELS_ONLY.name: labels_only}, objective=later, titles=titles)


class Mixing(Distillation):
    """Function matching: every image is mixed with another, λ ~ U(0, 1) of its own; both networks see the mixture."""

    def forward(self, model: Forward, batch: Batch) -> dict[str, Tensor]:
        images = batch.images
        share = torch.rand(len(images), 1, 1, 1).to(images.device)
        others = images[torch.randperm(len(images)).to(images.device)]
        mixed = (share * images + (1.0 - share) * others).to(memory_format=torch.channels_last)
        return super().forward(model, replace(batch, images=mixed))


def _hides_labels(parameters: Parameters) -> bool:
    """Whether the data has labels that the student is not to learn from, in later stages either."""
    return parameters.labels is not None or parameters.mix


def _pool(run: Run, data: Dataset, parameters: Parameters) -> Artifact | None:
    """None: the rest of the data's own training split."""
    settings, root = run.recipe.data, parameters.unlabelled
    if not isinstance(root, Path):
        if parameters.labels is not None:
            return None
        return prepared(run, POOL.name, settings.model_copy(update={"limit": None}), title=POOL.title)
    # The folder's path is not in the key; the data set is, whose preprocessing the images share.
    decoding = settings.model_dump(mode="json", include={"broken", "storage"})
    return run.stage(
        POOL,
        folders.Pool,
        settings={**decoding, "content": content_of(root)},
        inputs={"data": data},
        make=lambda out: folders.prepare_pool(root, settings, data.details.preprocessing, out),
    )


def _selected(run: Run, teacher: Checkpoint, data: Dataset, pool: Artifact | None, parameters: Parameters) -> Selection:
    criteria = Criteria(parameters.labels, parameters.confidence, parameters.balance, run.recipe.data.seed)
    judge = teacher if criteria.need_teacher else None
    inputs: dict[str, Artifact | None] = {"data": data, "pool": pool, "teacher": judge}
    return run.stage(
        SELECTION,
        Selection,
        settings=asdict(criteria),
        inputs={role: artifact for role, artifact in inputs.items() if artifact is not None},
        make=lambda out: _selection.select(data, pool, judge, criteria, out),
    )


def _student(
    run: Run,
    teacher: Checkpoint,
    data: Dataset,
    pool: Artifact | None,
    selection: Selection,
    parameters: Parameters,
    out: Path,
) -> Checkpoint:
    stage.check_classes(teacher, data)
    settings, augment, objective = run.recipe.distill, run.recipe.data.augment, run.recipe.distill.objective
    network = checkpoints.load(teacher)
    split = selection.mixed(data, pool, parameters.share)

    def objective_of(student: nn.Module) -> Distillation:
        shape, classes = data.details.preprocessing.shape, len(data.classes)
        labelled = counts_of(selection.labelled(data).labels, classes)
        networks = Networks(student, network, shape, len(split), classes, labelled)
        terms = PartlyLabelled(build_terms(objective, networks).each)
        source = Teacher.of(
            teacher, best_device(), settings.teacher_precision, terms.teacher_layers, use_compile=settings.compile
        )
        return (Mixing if parameters.mix else Distillation)(student, source, terms)

    return train_with(
        objective_of,
        Learner(run.recipe.student),
        data,
        TrainingSetup(settings, augment, run.progress(STAGE.name)),
        out,
        loader=training_loader(data, settings, augment, split=split),
        record=Record(
            training={"teacher": teacher.digest, "objective": objective_json(objective)},
            of_objective=lambda _: {"images": selection.metrics},
            warnings=[*stage.teacher_warnings(teacher, objective), *_selection.warnings_of(selection, data.classes)],
        ),
    )


def _labels_only(
    run: Run, data: Dataset, pool: Artifact | None, selection: Selection, parameters: Parameters, out: Path
) -> Checkpoint:
    """In as many steps: the labelled images are repeated to the length of the other training's epoch."""
    settings, augment = run.recipe.distill, run.recipe.data.augment
    length = len(selection.mixed(data, pool, parameters.share))
    split = _selection.repeated(selection.labelled(data), length)
    return train_with(
        lambda _: Supervised(),
        Learner(run.recipe.student),
        data,
        TrainingSetup(settings, augment, run.progress(LABELS_ONLY.name)),
        out,
        loader=training_loader(data, settings, augment, split=split),
        record=Record(training={"labels": selection.metrics["labelled"]}),
    )


SCHEME = Scheme(
    parameters=Parameters,
    distill=distill,
    needs_teacher=True,
    sees_labels=False,
    check=check,
    check_networks=check_networks,
)
