"""A teacher's logits, computed once for a number of views of every training image, and stored for the trainings.

A view is what one epoch's augmentation makes of an image; its draws depend on (seed, view) only, so that the student
sees the pixels that the logits were computed for (Beyer et al. 2022 on why the teacher must see what the student sees;
Wu et al., TinyViT, 2022, section 3.2, on keeping seeds with sparse logits).

view-<n>.npy          (N, C) float16 logits, or with top_k (N, k + 1) float16: the largest log-probabilities, and
                      the logarithm of the sum of all other probabilities
view-<n>-classes.npy  (N, k) int32, the classes they belong to
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from edgekd.data.dataset import Dataset
from edgekd.data.loader import Batch
from edgekd.distillation.objective import Outputs, Source, Teacher
from edgekd.distillation.output_files import OutputWriter, spread
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import OutputSettings, Precision
from edgekd.store.artifacts import Artifact, Details, read_as, write_json
from edgekd.store.store import resume_folder
from edgekd.training.host import best_device
from edgekd.training.train import TrainingSetup, training_loader
from edgekd.wording import counted

VERSION = 1
_TIMED_BATCHES = 6
# Above this share of a live teacher's time, storing does not justify the disk space and the smaller number of views.
_WORTHWHILE = 0.75


class OutputsDetails(Details):
    """Whose logits these are, and of what.

    Attributes:
        views: of each image.
        top_k: how many classes' log-probabilities are kept; None: every logit.
        seed: draws the views.
        teacher: the digest of its checkpoint, which ran in `precision`.
    """

    views: int
    top_k: int | None
    images: int
    classes: int
    seed: int
    teacher: str
    precision: str


class TeacherOutputs(Artifact[OutputsDetails]):
    """A teacher's logits for some views of every training image, as this module's docstring describes them."""

    kind = "teacher-outputs"

    @property
    def views(self) -> int:
        """How many views of each image are stored."""
        return self.details.views


@dataclass(frozen=True)
class Decision:
    """Whether outputs are stored, and the measurements behind it: milliseconds per batch, bytes on the disk."""

    stored: bool
    why: str
    live_ms: float | None = None
    read_ms: float | None = None
    size_bytes: int | None = None


def store(
    teacher: Checkpoint,
    data: Dataset,
    settings: OutputSettings,
    setup: TrainingSetup,
    out: Path,
    *,
    precision: Precision = "auto",
) -> TeacherOutputs:
    """Store a teacher's logits for all views of all training images; continues what an interrupted run has written.

    Args:
        teacher: its checkpoint.
        data: the training images.
        settings: how many views, and how many classes of each.
        setup: of the student's training: the views' seed, and the batch size.
        precision: of the teacher's forward pass.
        out: an empty folder, which becomes the artifact.

    Raises:
        ModelError: a logit is too large for half precision.
        OSError: no room on the disk.
    """
    steps, progress = setup.settings, setup.progress
    loader = training_loader(data, steps, setup.augment)
    classes, views = len(data.classes), settings.views
    writer = OutputWriter(resume_folder(out), loader.image_count, classes, settings)
    device = best_device()
    source = Teacher.of(teacher, device, precision)
    total, done = views * loader.image_count, writer.done
    for view in range(done // loader.image_count, views):
        for batch in loader.view(view, first=done - view * loader.image_count):
            writer.write(view, batch.indices.cpu().numpy(), source(batch).logits)
            done += len(batch.indices)
            if progress is not None:
                progress(done, total, f"view {view + 1}/{views}")
    writer.finish(out)
    details = OutputsDetails(
        views=views,
        top_k=settings.top_k,
        images=loader.image_count,
        classes=classes,
        seed=steps.seed,
        teacher=teacher.digest,
        precision=source.precision,
    )
    return TeacherOutputs.seal(out, details=details, metrics={"device": device.type})


class Stored:
    """Reads a teacher's stored logits for the same view of the same image; see objective.Source."""

    def __init__(self, outputs: TeacherOutputs, device: torch.device) -> None:
        self._classes, self._device = outputs.details.classes, device
        names = [f"view-{view}.npy" for view in range(outputs.views)]
        self._values = [np.load(outputs.path / name, mmap_mode="r") for name in names]
        self._top_classes: list[npt.NDArray[np.int32]] | None = None
        if outputs.details.top_k is not None:
            names = [f"view-{view}-classes.npy" for view in range(outputs.views)]
            self._top_classes = [np.load(outputs.path / name, mmap_mode="r") for name in names]

    def __call__(self, batch: Batch) -> Outputs:
        rows = batch.indices.cpu().numpy()
        values = torch.from_numpy(self._values[batch.view][rows]).to(self._device).float()
        if self._top_classes is None:
            return Outputs(values)
        top_classes = torch.from_numpy(self._top_classes[batch.view][rows]).to(self._device).long()
        return Outputs(spread(values, top_classes, self._classes))


def decide(
    folder: Path,
    teacher: Checkpoint,
    data: Dataset,
    settings: OutputSettings,
    setup: TrainingSetup,
    *,
    precision: Precision = "auto",
) -> Decision:
    """Compare the time of a live teacher with that of reading, on a few batches.

    It is measured once, since a resumed training must read the same outputs.

    Args:
        folder: the file with the decision is written here.
        teacher: its checkpoint.
        data: the training images.
        settings: how many views, and how many classes of each.
        setup: of the student's training.
        precision: of the teacher's forward pass.
    """
    file = folder / "teacher-outputs.json"
    if file.exists():
        return read_as(file, Decision)
    decision = _decide(folder, teacher, data, settings, setup, precision)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(decision))
    return decision


def _decide(
    folder: Path,
    teacher: Checkpoint,
    data: Dataset,
    settings: OutputSettings,
    setup: TrainingSetup,
    precision: Precision,
) -> Decision:
    steps = setup.settings
    if settings.views >= steps.epochs:
        return Decision(
            False, f"{counted(settings.views, 'view')} for {counted(steps.epochs, 'epoch')}: nothing is read twice"
        )
    loader = training_loader(data, steps, setup.augment)
    width = settings.top_k or len(data.classes)
    size = settings.views * loader.image_count * width * (2 if settings.top_k is None else 6)
    folder.mkdir(parents=True, exist_ok=True)
    if size > shutil.disk_usage(folder).free / 2:
        return Decision(False, "the outputs would take more than half of the free disk space", size_bytes=size)
    batches = [batch for batch, _ in zip(loader.epoch(0), range(_TIMED_BATCHES), strict=False)]
    live = Teacher.of(teacher, best_device(), precision)
    live_ms = _milliseconds(live, batches)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        one = OutputSettings(views=1, top_k=settings.top_k)
        writer = OutputWriter(Path(scratch) / "parts", loader.image_count, len(data.classes), one)
        for batch in batches:
            writer.write(0, batch.indices.cpu().numpy(), live(batch).logits)
        (Path(scratch) / "all").mkdir()
        writer.finish(Path(scratch) / "all")
        details = OutputsDetails(
            views=1,
            top_k=settings.top_k,
            images=loader.image_count,
            classes=len(data.classes),
            seed=steps.seed,
            teacher=teacher.digest,
            precision=live.precision,
        )
        sealed = TeacherOutputs.seal(Path(scratch) / "all", details=details)
        read_ms = _milliseconds(Stored(sealed, best_device()), batches)
    spent = settings.views * live_ms + steps.epochs * read_ms
    pays = spent < _WORTHWHILE * steps.epochs * live_ms
    why = f"{steps.epochs} epochs of a live teacher cost {steps.epochs * live_ms / spent:.1f} times as much"
    return Decision(pays, why, round(live_ms, 3), round(read_ms, 3), size)


def _milliseconds(source: Source, batches: Sequence[Batch]) -> float:
    source(batches[0])
    times = []
    for batch in batches:
        start = time.perf_counter()
        float(source(batch).logits.sum())
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)
