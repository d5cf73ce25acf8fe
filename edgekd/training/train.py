"""From settings to a checkpoint: training on labels, training with any objective, or loading a trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from edgekd import plugins
from edgekd.bench.model_files import model_file
from edgekd.data.balance import resolved
from edgekd.data.dataset import Dataset, Split, class_counts, open_split
from edgekd.data.loader import BatchSource, Loader, Variation, fitting_batch
from edgekd.errors import BenchError, ModelError
from edgekd.models import checkpoint as checkpoints
from edgekd.models import hub_folder
from edgekd.models.architecture import Architecture
from edgekd.models.checkpoint import Checkpoint, TrainingNotes
from edgekd.models.code import code_of
from edgekd.models.onnx_network import MODEL, OnnxNetwork
from edgekd.models.own_input import own_input
from edgekd.models.timm_training import trained_input
from edgekd.recipe.onnx_file import onnx_file
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings, TeacherSettings, TrainSettings
from edgekd.store.artifacts import Json, digest, file_digest
from edgekd.store.store import resume_folder
from edgekd.training import adopted
from edgekd.training.bf16 import compare
from edgekd.training.fit import BeginEpoch, Callbacks, Progress, fit, score
from edgekd.training.host import best_device
from edgekd.training.objective import Supervised
from edgekd.training.start import Start, start
from edgekd.training.state import EpochRecord
from edgekd.training.throughput import tuning_of

_EVALUATION_BATCH = 256
Measure = Callable[[nn.Module], Json]


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training, its augmentation and its callbacks.

    Attributes:
        augment: of the training images.
        progress, begin_epoch: see fit().
        notes: further metrics for the manifest.
    """

    settings: StepSettings
    augment: AugmentSettings
    progress: Progress | None = None
    begin_epoch: BeginEpoch | None = None
    notes: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Learner:
    """The network to train: a new one, or a checkpoint's.

    Attributes:
        heads: additional tasks of a new network, each with its classes; accuracy is measured on the main task.
        change: edits the network before training; returns the architecture with the edit that replays it.
    """

    model: ModelSettings | Checkpoint
    heads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    change: Callable[[nn.Module, Architecture], Architecture] | None = None


@dataclass(frozen=True)
class Record:
    """Additional entries for the checkpoint's manifest.

    Attributes:
        training: for the manifest's training notes.
        warnings: added to those about the starting network.
        of_objective: from the trained objective to further metrics.
        of_network: from the trained network to further metrics.
    """

    training: Json = field(default_factory=dict)
    warnings: Sequence[str] = ()
    of_objective: Measure | None = None
    of_network: Measure | None = None


def train(
    model: ModelSettings,
    data: Dataset,
    setup: TrainingSetup,
    out: Path,
    *,
    measure: Measure | None = None,
) -> Checkpoint:
    """Train a network on labels only.

    Args:
        out: an empty folder, which becomes the checkpoint.
        model: the network.
        data: its training and validation images.
        setup: how it is trained.
        measure: from the trained network to further metrics for the manifest.

    Raises:
        ModelError: the network cannot be built, or its weights do not fit.
        UsageError: the weights of the classes do not fit.
        TrainingError: see fit().
    """
    labels = setup.settings if isinstance(setup.settings, TrainSettings) else TrainSettings()
    smoothing, weights = labels.label_smoothing, _class_weights(labels, data)
    noted = {} if weights is None else {"class_weights": list(weights)}
    return train_with(
        lambda _: Supervised(label_smoothing=smoothing, class_weights=weights, multilabel=data.multilabel),
        Learner(model),
        data,
        setup,
        out,
        record=Record(training={"label_smoothing": smoothing, **noted}, of_network=measure),
    )


def _class_weights(settings: TrainSettings, data: Dataset) -> tuple[float, ...] | None:
    if settings.class_weights is None:
        return None
    return resolved(settings.class_weights, class_counts(data))


def train_with(
    make_objective: Callable[[nn.Module], nn.Module],
    learner: Learner,
    data: Dataset,
    setup: TrainingSetup,
    out: Path,
    *,
    loader: BatchSource | None = None,
    record: Record | None = None,
) -> Checkpoint:
    """Train with any objective.

    Args:
        make_objective: from the network, before fit() wraps it, to the objective; see fit().
        learner: the network.
        data: its training and validation images.
        setup: how it is trained.
        loader: the training batches; default: the training split, with the augmentation in `setup`.
        out: an empty folder, which becomes the checkpoint.

    Raises:
        ModelError, TrainingError: as train().
    """
    record, settings = record or Record(), setup.settings
    torch.manual_seed(settings.seed)
    begun = begin(learner.model, data, heads=learner.heads)
    network, architecture = begun.network, begun.architecture
    if learner.change is not None:
        architecture = learner.change(network, architecture)
    objective = make_objective(network)
    history = fit(
        network,
        objective,
        loader or training_loader(data, settings, setup.augment),
        settings,
        resume=resume_folder(out),
        validation=evaluation_loader(data, "validation"),
        callbacks=Callbacks(setup.progress, setup.begin_epoch),
    )
    return checkpoints.save(
        network,
        architecture,
        preprocessing=data.details.preprocessing,
        classes=data.classes,
        out=out,
        training=TrainingNotes(**{"epochs": settings.epochs, **begun.note, **record.training}),
        metrics={
            **record_of(history, begun, out, warnings=record.warnings, measure=data.measure),
            **measured(network, data, known=history[-1].validation_accuracy),
            **(record.of_objective(objective) if record.of_objective is not None else {}),
            **(record.of_network(network) if record.of_network is not None else {}),
            **setup.notes,
        },
    )


def adopt(model: ModelSettings, data: Dataset, out: Path, *, measure: Measure | None = None) -> Checkpoint:
    """Use a trained network as it is, and measure it on the validation split. Args as train(), Raises as start()."""
    begun = begin(model, data, adopted=True)
    network, architecture = begun.network, begun.architecture
    network.to(best_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    section = "teacher.input" if isinstance(model, TeacherSettings) else "data"
    known = own_input(model).mean is not None
    doubts = adopted.warnings_of(
        network, data, evaluation_loader(data, "validation"), section=None if known else section
    )
    warnings = [*begun.warnings, *doubts]
    found = measured(network, data)
    if data.details.answered:  # by this network: it agrees with itself
        del found["validation_agreement"]
    return checkpoints.save(
        network,
        architecture,
        preprocessing=data.details.preprocessing,
        classes=data.classes,
        out=out,
        training=_training_of(model),
        metrics={
            **found,
            **({"warnings": warnings} if warnings else {}),
            **(measure(network) if measure is not None else {}),
        },
    )


def record_of(
    history: Sequence[EpochRecord], begun: Start, out: Path, *, warnings: Sequence[str] = (), measure: str = "accuracy"
) -> Json:
    """A training's entries for its manifest: history, warnings and throughput tuning.

    Args:
        history: returned by fit(), with resume_folder(out) as its `resume`.
        begun: the starting network.
        warnings: added to those about the starting network.
        measure: what was measured on the validation split, see Dataset.measure.
    """
    return {
        "history": [
            {key.replace("accuracy", measure): value for key, value in asdict(record).items()} for record in history
        ],
        "warnings": [*begun.warnings, *warnings],
        "throughput": tuning_of(resume_folder(out)),
    }


def measured(network: nn.Module, data: Dataset, *, known: float | None = None) -> Json:
    """The metrics of every finished network: its validation score, and the comparison of bf16 with fp32.

    Without labels it is the agreement with the float network, see Dataset.measure.

    Args:
        known: that share, where it is already measured.
    """
    loader, device = evaluation_loader(data, "validation"), best_device()
    value = score(network, loader, device) if known is None else known
    return {f"validation_{data.measure}": value, "bf16": compare(network, loader, device)}


def initial(model: ModelSettings | Checkpoint, data: Dataset) -> tuple[nn.Module, Architecture]:
    """The network that a recipe describes, for the classes and the image size of `data`, or that of a checkpoint.

    Raises:
        As start().
    """
    begun = begin(model, data)
    return begun.network, begun.architecture


def begin(
    model: ModelSettings | Checkpoint,
    data: Dataset,
    *,
    adopted: bool = False,
    heads: Mapping[str, Sequence[str]] | None = None,
    fetch: bool = True,
) -> Start:
    """The starting network for `data`; a teacher without `train` is adopted. Args and Raises as start().

    For images of several labels, an ONNX file that gives probabilities is refused with a ModelError too: which function
    made them, and so which logits they belong to, is not known.
    """
    taken = adopted or (isinstance(model, TeacherSettings) and model.train is None)
    begun = start(model, data.details.preprocessing, data.classes, adopted=taken, heads=heads, fetch=fetch)
    if data.details.task == "multilabel" and isinstance(begun.network, OnnxNetwork) and begun.network.probabilities:
        raise ModelError(
            "the teacher's ONNX file gives probabilities, and images of several labels need a logit for each class",
            found="outputs between 0 and 1 only",
            hint="export it without its last sigmoid or softmax",
        )
    return begun


def origin_of(model: ModelSettings) -> Json:
    """A model's settings for a stage's key: digests of its checkpoint and its code instead of their paths.

    Args:
        model: settings of a teacher or student.

    Returns:
        Its settings without how it is trained, in a form that JSON takes.

    Raises:
        ModelError: the checkpoint does not exist.
        ArtifactError: the checkpoint folder is damaged.
        UsageError: the code cannot be read.
    """
    origin = model.model_dump(mode="json", exclude={"train", "checkpoint"})
    if (file := onnx_file(model.model)) is not None:
        return {**origin, "model": MODEL, "checkpoint": _digest_of_onnx(file, model)}
    if (code := code_of(model.model)) is not None:
        origin = {**origin, "model": str(code), "code": code.sha256}
    else:
        origin = {**origin, **plugins.code_key("models", model.model.partition("/")[0])}
    if model.checkpoint is None:
        return origin
    if model.checkpoint.is_dir():
        return {**origin, "checkpoint": _digest_of(model.checkpoint)}
    if not model.checkpoint.is_file():
        raise ModelError(
            f"the checkpoint {model.checkpoint} does not exist",
            allowed="a checkpoint folder, .safetensors, or a state dict (.pth, .pt)",
        )
    content, known = file_digest(model.checkpoint), vars(trained_input(model.checkpoint))
    said = any(value is not None for value in known.values())
    return {**origin, "checkpoint": digest([content, known] if said else content)}


def training_loader(
    data: Dataset,
    settings: StepSettings,
    augment: AugmentSettings,
    *,
    split: Split | None = None,
    views: int | None = None,
    second_view: bool = False,
) -> Loader:
    """Batches for training, shuffled or drawn by class, and augmented, on the best device that is here.

    Args:
        data: the data set, with its balance.
        settings: their batch size, see fitting_batch(), and seed are used.
        augment: how images are varied.
        split: images to show, each once, instead of the training split.
        views: see Variation; None: every epoch shows each image in a new view.
        second_view: whether each batch holds a second view of its images too.
    """
    chosen = split if split is not None else open_split(data, "train")
    return Loader(
        chosen,
        data.details.preprocessing,
        batch_size=fitting_batch(settings.batch_size, len(chosen)),
        variation=Variation(
            augment,
            data.details.mirror,
            settings.seed,
            views,
            second_view,
            balance=data.details.balance if split is None else "none",
        ),
        device=best_device(),
    )


def evaluation_loader(data: Dataset, split: str) -> Loader:
    """Batches for evaluation, in order and centre-cropped, on the best device that is here.

    Args:
        data: the data set.
        split: "train", "validation" or "test".
    """
    return Loader(
        open_split(data, split),
        data.details.preprocessing,
        batch_size=_EVALUATION_BATCH,
        device=best_device(),
        classes=len(data.classes),
    )


def _digest_of_onnx(file: Path, model: ModelSettings) -> str:
    """Of all files of the model, and of how it sees images. Raises ModelError where a data file is missing."""
    try:
        content = model_file(file).sha256
    except (BenchError, OSError) as error:
        raise ModelError(f"{file} cannot be read", found=str(error)) from None
    return digest([content, vars(own_input(model))])


def _digest_of(folder: Path) -> str:
    if not hub_folder.is_one(folder):
        return Checkpoint.load(folder).digest
    hub = hub_folder.read(folder)
    return digest([file_digest(hub.weights), digest(vars(hub.input)), dict(hub.arguments), hub.classes])


def _training_of(model: ModelSettings) -> TrainingNotes:
    folder = model.checkpoint
    if folder is not None and folder.is_dir() and not hub_folder.is_one(folder):
        return Checkpoint.load(folder).details.training
    return TrainingNotes()
