"""The files that all variants of a training share: images, both networks and their weights, in one folder.

data/, teacher/ and outputs/ are edgekd's artifacts; student.pt and teacher.pt are the same weights as state dicts,
which another tool's interpreter can read.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from _pillow import MEAN, STD
from _turns import KEEP_FREED_MEMORY, Variant

from edgekd.data.dataset import Dataset, DatasetDetails
from edgekd.distillation import outputs
from edgekd.models import checkpoint as checkpoints
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.settings import AugmentSettings, DistillSettings, OutputSettings, TermSettings
from edgekd.runtime.preprocess import Preprocessing
from edgekd.training.train import TrainingSetup

HERE = Path(__file__).parent
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Job:
    """One training, and the variant of it.

    Attributes:
        kind: "fit" is edgekd's; "bare" a loop of a few lines; "timm" timm's task in one; "loader" edgekd's data alone;
            "stream" edgekd's over files, with nothing made before the first turn.
        data: of a bare loop: batches made beforehand, edgekd's Loader, or Pillow image by image.
        teacher: "live" in the precision that edgekd chooses, "none": labels only.
        student_fp32: a bare loop's student; False: in the arithmetic that edgekd chooses.
        compile: fit()'s student and live teacher.
        turns: epochs that are timed, and one before to warm up.
    """

    folder: str
    student: str = "torchvision/shufflenet_v2_x0_5"
    teacher_model: str = "cifar/resnet9x0.5"
    classes: int = 10
    side: int = 32
    images: int = 4096
    kind: Literal["fit", "bare", "timm", "loader", "stream"] = "fit"
    data: Literal["tensors", "batched", "pillow"] = "batched"
    teacher: Literal["live", "fp32", "bf16", "stored", "none"] = "live"
    student_fp32: bool = False
    channels_last: bool = True
    compile: bool = False
    workers: int = 0
    threads: int = 2
    turns: int = 4
    batch_size: int = 128
    learning_rate: float = 0.01
    clip_norm: float = 5.0
    temperature: float = 4.0
    kd_weight: float = 0.9

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def preprocessing(self) -> Preprocessing:
        resize = self.side if self.side <= 96 else round(self.side * 8 / 7)
        return Preprocessing((self.side, self.side), (resize, resize), MEAN, STD)

    @property
    def settings(self) -> DistillSettings:
        return DistillSettings(
            epochs=self.turns,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            clip_norm=self.clip_norm,
            compile=self.compile,
        )

    @property
    def objective(self) -> tuple[TermSettings, ...]:
        kd = TermSettings(method="kd", weight=self.kd_weight, temperature=self.temperature)
        return kd, TermSettings(method="cross_entropy", weight=1.0 - self.kd_weight)

    def architecture(self, role: Literal["student", "teacher"]) -> Architecture:
        """The standard stems: what the other tools get from torchvision."""
        return Architecture(model=self.student if role == "student" else self.teacher_model, num_classes=self.classes)


def prepare(job: Job) -> Job:
    """Write everything that the variants read into the job's folder, which is made."""
    job.path.mkdir(parents=True)
    data = _write_noise(job)
    torch.manual_seed(0)
    networks = {role: build(job.architecture(role)) for role in ("student", "teacher")}
    for role, network in networks.items():
        torch.save(network.state_dict(), job.path / f"{role}.pt")
    folders = {name: job.path / name for name in ("teacher", "outputs")}
    for folder in folders.values():
        folder.mkdir()
    teacher = checkpoints.save(
        networks["teacher"],
        job.architecture("teacher"),
        preprocessing=job.preprocessing,
        classes=data.classes,
        out=folders["teacher"],
    )
    one = OutputSettings(views=1)
    outputs.store(teacher, data, one, TrainingSetup(job.settings, AugmentSettings()), folders["outputs"])
    return job


def variant(name: str, job: Job, *, keep_freed_memory: bool = True, gpu: bool = False) -> Variant:
    """A process of this interpreter that does the job."""
    return _start(name, job, sys.executable, "_training_worker.py", keep_freed_memory, {} if gpu else NO_GPU)


def torchdistill(name: str, job: Job, python: str, *, keep_freed_memory: bool = False) -> Variant:
    """The same job in torchdistill, by an interpreter that has it."""
    return _start(name, job, python, "_torchdistill.py", keep_freed_memory, NO_GPU)


def _start(
    name: str, job: Job, python: str, script: str, keep_freed_memory: bool, environment: Mapping[str, str]
) -> Variant:
    handle, file = tempfile.mkstemp(suffix=".json", dir=job.path)
    os.close(handle)
    Path(file).write_text(json.dumps(asdict(job)))
    allocator = KEEP_FREED_MEMORY if keep_freed_memory else {}
    threads = {"OMP_NUM_THREADS": str(job.threads)}
    return Variant(name, [python, str(HERE / script), file], {**environment, **allocator, **threads})


def _write_noise(job: Job) -> Dataset:
    folder = job.path / "data"
    folder.mkdir()
    generator, shape = np.random.default_rng(0), (job.images, *job.preprocessing.stored)
    pixels = np.lib.format.open_memmap(folder / "train.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, job.images, 1024):
        part = pixels[start : start + 1024]
        part[:] = generator.integers(0, 256, part.shape, dtype=np.uint8)
    pixels.flush()
    np.save(folder / "train-labels.npy", generator.integers(0, job.classes, job.images))
    details = DatasetDetails(
        source="noise",
        classes=tuple(f"class {number}" for number in range(job.classes)),
        preprocessing=job.preprocessing,
        mirror=True,
        storage="cached",
        counts={"train": job.images},
    )
    return Dataset.seal(folder, details=details)
