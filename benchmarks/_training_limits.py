"""Parts D, F and G of training.py: a teacher in bf16, memory over streamed files, a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import psutil
import torch
from _figures import Figure, at_least, at_most, middle, not_measured
from _jobs import Job, variant
from _jobs import prepare as prepare_job
from _training_speed import Sizes
from _turns import round_robin
from PIL import Image
from torch import nn

from edgekd.data.loader import Batch, Loader
from edgekd.data.prepare import prepare
from edgekd.data.sources import source_named
from edgekd.distillation.objective import Teacher
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.weights import load_state, read_state
from edgekd.recipe.settings import DataSettings
from edgekd.training.host import best_device, resolve_precision
from edgekd.training.train import evaluation_loader

_WEIGHTS = Path("weights/cifar10_resnet56.pth")
_IMAGES = "cifar10_jpeg"
_SAMPLE_SECONDS = 0.05
_GPU_SAMPLE_SECONDS = 0.5
# CIFAR-100 in the distillation literature, and the ImageNet one beside it: epochs, training images.
_RECIPES = {32: (240, 50_000), 224: (100, 1_281_167)}


def bf16_teacher(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part D: edgekd's teacher compared with the same network in fp32."""
    what = "bf16 teacher on CIFAR-10 (JPEG)"
    root = os.environ.get("EDGEKD_DATA")
    if root is None:
        return [not_measured("D", what, "EDGEKD_DATA is not set")]
    weights = Path(root) / _WEIGHTS
    if missing := [name for name in (_WEIGHTS, _IMAGES) if not (Path(root) / name).exists()]:
        return [not_measured("D", what, f"no {' and no '.join(map(str, missing))} in EDGEKD_DATA")]
    network, exact = (_resnet56(weights) for _ in range(2))
    cpu = torch.device("cpu")
    if resolve_precision("auto", network, cpu, inference=True) != "bf16":
        return [not_measured("D", what, "this machine has no bf16")]
    teacher = Teacher(network, cpu, "bf16")
    (folder / "d").mkdir()
    section = source_named("parquet").settings(source="parquet", root=Path(root) / _IMAGES, image_size=(32, 32))
    data = prepare(section, folder / "d")
    return _agreement(teacher, exact, evaluation_loader(data, "test"), sizes.validation_batches)


def _resnet56(weights: Path) -> nn.Module:
    network = build(Architecture(model="cifar/resnet56", num_classes=10))
    load_state(network, read_state(weights), origin=weights)
    return network.eval()


@torch.no_grad()
def _agreement(
    teacher: Callable[[Batch], object], exact: nn.Module, loader: Loader, batches: int | None
) -> list[Figure]:
    same = right = right_exact = count = 0
    for number, batch in enumerate(loader.epoch(0)):
        if number == batches:
            break
        answers, wanted = teacher(batch).logits.argmax(1), exact(batch.images).argmax(1)  # type: ignore[attr-defined]
        same += int((answers == wanted).sum())
        right += int((answers == batch.targets).sum())
        right_exact += int((wanted == batch.targets).sum())
        count += len(batch.targets)
    scores = [100 * hits / count for hits in (right, right_exact)]
    note = f"bf16 {scores[0]:.2f} %, fp32 {scores[1]:.2f} %; CIFAR-10 (JPEG), {count} test images"
    return [
        at_least("D", "bf16 teacher: equal top-1 answers to fp32", 100 * same / count, 99.5, "%", note),
        at_most("D", "bf16 teacher: difference in accuracy from fp32", abs(scores[0] - scores[1]), 0.1, "points", note),
    ]


def memory(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part F: an epoch over a folder of JPEG files, in the memory of the process and its readers."""
    images = folder / "f-images"
    try:
        _write_jpegs(images, sizes.streamed)
        settings = DataSettings(source="image-folder", root=images, image_size=(32, 32), storage="streamed")
        job = sizes.job(
            folder / "f", kind="stream", student="cifar/resnet8", teacher_model="cifar/resnet8", turns=1, images=256
        )
        prepare_job(job)
        shutil.rmtree(job.path / "data")
        (job.path / "data").mkdir()
        prepare(settings, job.path / "data")
        return _peak(job, sizes.streamed)
    finally:
        shutil.rmtree(images, ignore_errors=True)


def _peak(job: Job, files: int) -> list[Figure]:
    child = variant("stream", job)
    process = psutil.Process(child.pid)
    idle = _resident(process)
    with _sampled(lambda: _resident(process), _SAMPLE_SECONDS) as samples:
        answer = child.turn()
    child.close()
    shared, summed = (max(s[i] for s in samples) - idle[i] for i in range(2))
    note = f"{files} files, {answer['seconds']:.0f} s; above {idle[0] / 1e9:.2f} GB after the imports"
    return [
        at_most("F", "peak memory over streamed files", shared / 1e9, 1.0, "GB", f"{note}; shared pages in parts"),
        Figure("F", "the same, shared pages counted in every process", summed / 1e9, "GB", note=note),
    ]


def _resident(process: psutil.Process) -> tuple[float, float]:
    """Bytes of a process and its children: shared pages divided among them (where Linux reports it), and summed."""
    proportional = summed = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            rss = each.memory_info().rss
            proportional += getattr(each.memory_full_info(), "pss", rss)
            summed += rss
        except psutil.NoSuchProcess:
            continue  # a reader that has just finished
    return proportional, summed


def _write_jpegs(root: Path, count: int) -> None:
    """64x64 gradients of 10 classes, no two alike; a few in validation and test."""
    generator = np.random.default_rng(0)
    for split, number in (("train", count), ("validation", 20), ("test", 20)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
        for index in range(number):
            small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BILINEAR).save(root / split / str(index % 10) / f"{index}.jpg")


def gpu(sizes: Sizes, folder: Path, *, quick: bool) -> list[Figure]:
    """Part G."""
    if not torch.cuda.is_available():
        return [not_measured("G", "training on a GPU", "no GPU")]
    small = sizes.job(
        folder / "g32", classes=100, teacher_model="cifar/resnet32x4", batch_size=64, images=1024 if quick else 50_000
    )
    large = sizes.job(
        folder / "g224",
        classes=1000,
        side=224,
        student="torchvision/mobilenet_v2",
        teacher_model="torchvision/resnet50",
        images=256 if quick else 4096,
    )
    return [figure for job in (large, small) for figure in _on_gpu(prepare_job(job), sizes.rounds)]


def _on_gpu(job: Job, rounds: int) -> list[Figure]:
    figures = []
    ways = {
        "live teacher": job,
        "live teacher, compiled": replace(job, compile=True),
        "stored outputs": replace(job, teacher="stored"),
        "stored outputs, compiled": replace(job, teacher="stored", compile=True),
    }
    for way, one in ways.items():
        with _sampled(_utilisation, _GPU_SAMPLE_SECONDS) as samples:
            found = round_robin([variant(way, one, gpu=True)], rounds)[way]
        steps = job.images // job.batch_size
        rate = steps * job.batch_size / middle(found)
        epochs, images = _RECIPES[job.side]
        what = f"{job.teacher_model} to {job.student} at {job.side}, {way}"
        used = [value for value in samples if value is not None]
        note = f"{torch.cuda.get_device_name()}, batch {job.batch_size}, on {best_device().type}"
        figures.append(Figure("G", what, rate, "images/s", note=note))
        figures.append(
            Figure(
                "G",
                f"{what}: GPU in use",
                mean(used),
                "%",
                note="mean, with the start, the compiling and the turns' gaps",
            )
            if used
            else not_measured("G", f"{what}: GPU in use", "no nvidia-smi")
        )
        hours = epochs * images / rate / 3600
        figures.append(Figure("G", f"{what}: {epochs} epochs of {images:,}", hours, "h", note="extrapolated"))
    return figures


def _utilisation() -> float | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return float(answer) if answer.isdigit() else None


@contextmanager
def _sampled(ask: Callable[[], object], seconds: float) -> Iterator[list[Any]]:
    """Samples of `ask` at regular intervals while the body runs."""
    samples = [ask()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            samples.append(ask())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
