"""Images from a teacher only: DeepInversion (Yin et al., Dreaming to Distill, 2020, section 3.2).

A batch of noise is optimised until the teacher predicts the wanted classes for it, and until its statistics at the
teacher's batch norms are those of the real images:

    w_CE CE(teacher(x), y) + w_BN Σ_l (‖μ_l(x) − mean_l‖ + ‖σ²_l(x) − var_l‖) + w_TV TV(x) + w_L2 mean x²

TV and L2 are means over the pixels here, so that their weights mean the same for every image size. The competition
with a student (the paper's Adaptive DeepInversion) is not done: the images depend on the teacher only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgekd.data import storage
from edgekd.data.augment import Normalise, generator, middle
from edgekd.data.sources import Labels
from edgekd.distillation.inversion_losses import check_batch_norms, reading_gaps, total_variation
from edgekd.errors import ArtifactError, NonFiniteLossError
from edgekd.models import checkpoint as checkpoints
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import Positive, Settings
from edgekd.runtime.preprocess import Pixels, Preprocessing
from edgekd.store.artifacts import Artifact, Details, numbers
from edgekd.store.store import resume_folder
from edgekd.training.fit import Progress
from edgekd.training.guard import clear_memory_errors
from edgekd.training.host import best_device, keep_freed_memory

VERSION = 2
IMAGES_PER_CLASS = 64
SPLIT = "train"
_ORDER, _NOISE = 0, 1

Weight = Annotated[float, Field(ge=0.0, le=1e9)]


class InversionSettings(Settings):
    """How many synthetic images are made, and how they are optimised."""

    images: Positive | None = Field(
        None, description=f"how many, classes in equal parts; default: {IMAGES_PER_CLASS} for each class"
    )
    iterations: Annotated[int, Field(ge=0)] = Field(200, description="steps for each batch; 0 leaves noise")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        128, description="images made together: their statistics are compared, so that more is better"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(0.3, description="Adam's, in normalised pixels; a cosine")
    classification: Weight = Field(1.0, description="weight of the cross-entropy with the wanted class")
    batch_norm: Weight = Field(0.1, description="weight of the distance to the batch norms' statistics")
    total_variation: Weight = Field(0.03, description="weight of the squared differences of neighbouring pixels")
    l2: Weight = Field(1e-4, description="weight of the squared pixels")
    seed: int = 0


class SyntheticDetails(Details):
    """Of synthetic images: their teacher's digest, their classes, how many, and the teacher's preprocessing."""

    teacher: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    preprocessing: Preprocessing


class SyntheticImages(Artifact[SyntheticDetails]):
    """Images made from a teacher's statistics, with the classes that they were made for."""

    kind = "synthetic-images"


def synthesise(
    teacher: Checkpoint,
    settings: InversionSettings,
    out: Path,
    *,
    flip: bool,
    progress: Progress | None = None,
) -> SyntheticImages:
    """Make images batch by batch, continuing after the last batch that an interrupted run finished.

    Args:
        teacher: with batch norms; it is not changed.
        settings: how many images, and how they are optimised.
        flip: whether a mirrored image keeps its class.
        out: an empty folder, which becomes the artifact.

    Raises:
        ModelError: the teacher has no batch norms with statistics.
        NonFiniteLossError: the pixels became NaN.
        OutOfMemoryError: a batch does not fit.
        OSError: no room on the disk.
    """
    network, preprocessing = checkpoints.load(teacher), teacher.details.preprocessing
    check_batch_norms(network)
    labels = wanted_classes(settings.images, len(teacher.classes), settings.seed)
    batches = np.array_split(np.arange(len(labels)), -(-len(labels) // settings.batch_size))
    maker = _Maker(network, preprocessing, settings, flip)
    folder = resume_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(batches):
        if not _file(folder, number).exists():
            pixels = maker.batch(number, labels[rows], _counted(progress, number, len(batches), settings.iterations))
            _save(_file(folder, number), pixels)
    with storage.scratch(out / ".images.npy", (len(labels), *preprocessing.stored)) as room:
        right = 0
        for number, rows in enumerate(batches):
            room[rows] = pixels = _read(_file(folder, number), (len(rows), *room.shape[1:]))
            right += maker.recognised(pixels, labels[rows])
        (out / ".images.npy").rename(storage.pixels_file(out, SPLIT))
    np.save(storage.labels_file(out, SPLIT), labels)
    details = SyntheticDetails(
        teacher=teacher.digest, classes=teacher.classes, counts={SPLIT: len(labels)}, preprocessing=preprocessing
    )
    return SyntheticImages.seal(out, details=details, metrics=numbers({"teacher_agreement": right / len(labels)}))


def wanted_classes(images: int | None, classes: int, seed: int) -> Labels:
    """The classes that the images are made for: balanced (±1), also within any contiguous range.

    Args:
        images: N; None: IMAGES_PER_CLASS of each class.
        classes: how many.
        seed: of the order of the classes.

    Returns:
        (N,) int64.
    """
    count = IMAGES_PER_CLASS * classes if images is None else images
    order = torch.randperm(classes, generator=generator(seed, 0, _ORDER)).numpy()
    labels: Labels = order[np.arange(count) % classes]
    return labels


def draw_shift(reach: int, random: torch.Generator) -> tuple[int, int, bool]:
    """How far an image is shifted, and whether it is mirrored.

    Args:
        reach: the largest shift either way, in pixels.
        random: the generator that is drawn from.

    Returns:
        Pixels down, pixels to the right, and whether it is mirrored.
    """
    down, right = torch.randint(-reach, reach + 1, (2,), generator=random).tolist()
    return down, right, bool(torch.randint(0, 2, (), generator=random))


class _Maker:
    """Optimises batches of pixels against one teacher, in single precision; the teacher is never changed."""

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, settings: InversionSettings, flip: bool
    ) -> None:
        self._device = best_device()
        self._network = network.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._network.requires_grad_(False)
        self._preprocessing, self._settings, self._flip = preprocessing, settings, flip
        self._normalise = Normalise(preprocessing, self._device)
        mean, std = (
            torch.tensor(v, device=self._device).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std)
        )
        self._mean, self._std = mean, std
        self._black, self._white = -mean / std, (1.0 - mean) / std
        keep_freed_memory()

    def batch(self, number: int, labels: Labels, show: Callable[[int], None]) -> Pixels:
        """(B, H, W, C) before the crop; depends on the seed and the batch's number only. Raises as synthesise()."""
        settings = self._settings
        random = generator(settings.seed, number, _NOISE)
        targets = torch.from_numpy(labels).to(self._device)
        high, wide, channels = self._preprocessing.stored
        noise = torch.randn(len(labels), channels, high, wide, generator=random).to(self._device)
        canvas = self._clamped(noise).requires_grad_()
        optimiser = torch.optim.Adam([canvas], lr=settings.learning_rate, betas=(0.5, 0.9))
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, settings.iterations))
        with clear_memory_errors(settings.batch_size, self._device):
            for step in range(settings.iterations):
                loss = self._loss(self._seen(canvas, random), targets)
                (canvas.grad,) = torch.autograd.grad(loss, canvas)
                optimiser.step()
                rates.step()
                canvas.data = self._clamped(canvas.data)
                show(step + 1)
        if not bool(canvas.isfinite().all()):
            raise NonFiniteLossError(
                f"the pixels of synthetic batch {number + 1} are no longer numbers",
                hint="lower the scheme's learning_rate or its weights",
            )
        return self._bytes(canvas.detach())

    def recognised(self, pixels: Pixels, labels: Labels) -> int:
        """For how many of these images the teacher predicts the class that they were made for."""
        images = self._normalise(middle(torch.from_numpy(pixels).to(self._device), self._preprocessing.image_size))
        with torch.no_grad():
            predicted: Tensor = self._network(images).argmax(1)
        return int((predicted.cpu() == torch.from_numpy(labels)).sum())

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        settings = self._settings
        with reading_gaps(self._network) as gaps:
            logits = self._network(images)
        return (
            settings.classification * F.cross_entropy(logits, targets)
            + settings.batch_norm * torch.stack(gaps).sum()
            + settings.total_variation * total_variation(images)
            + settings.l2 * images.square().mean()
        )

    def _seen(self, canvas: Tensor, random: torch.Generator) -> Tensor:
        """The centre crop after a random cyclic shift by at most a sixteenth of the shorter side, perhaps mirrored."""
        size, (high, wide) = self._preprocessing.image_size, self._preprocessing.resize
        reach = max(1, min(size) // 16)
        down, right, mirrored = draw_shift(reach, random)
        moved = canvas.roll((down, right), dims=(2, 3))
        if self._flip and mirrored:
            moved = moved.flip(3)
        top, left = (high - size[0]) // 2, (wide - size[1]) // 2
        return moved[..., top : top + size[0], left : left + size[1]].contiguous(memory_format=torch.channels_last)

    def _clamped(self, canvas: Tensor) -> Tensor:
        return canvas.clamp(self._black, self._white)

    def _bytes(self, canvas: Tensor) -> Pixels:
        levels = (255.0 * (canvas * self._std + self._mean)).round().clamp(0, 255).byte()
        pixels: Pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return pixels


def _counted(progress: Progress | None, number: int, batches: int, iterations: int) -> Callable[[int], None]:
    if progress is None:
        return lambda step: None
    return lambda step: progress(number * iterations + step, batches * iterations, f"batch {number + 1}/{batches}")


def _file(folder: Path, number: int) -> Path:
    return folder / f"batch-{number}.npy"


def _save(file: Path, pixels: Pixels) -> None:
    """Written atomically."""
    beside = file.with_suffix(".new")
    with beside.open("wb") as stream:
        np.save(stream, pixels)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)


def _read(file: Path, shape: tuple[int, ...]) -> Pixels:
    try:
        pixels: Pixels = np.load(file)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"{pixels.dtype} {pixels.shape}")
    except (OSError, EOFError, ValueError) as error:
        raise ArtifactError(
            f"{file} is damaged", found=str(error), hint="delete it: that batch is made again"
        ) from None
    return pixels
