"""No training images: they are made from the teacher's batch norms (Yin et al., Dreaming to Distill, 2020).

The student learns on synthetic images only, with every loss that the recipe names; their labels are the classes that
they were made for. The recipe's data gives the classes, the size and the normalisation of the images, and the real
validation and test splits, on which the student is evaluated only. Its training images are not used:
recovery after pruning, calibration and QAD use the synthetic images too. Only `distill.baseline`, and a teacher that is
trained here, use them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from edgekd.data import storage
from edgekd.data.composed import link_split
from edgekd.data.dataset import Dataset, DatasetDetails, open_split
from edgekd.data.sources import source_named
from edgekd.distillation import inversion
from edgekd.distillation.inversion import InversionSettings, SyntheticImages
from edgekd.distillation.inversion_losses import check_batch_norms
from edgekd.errors import DataError, UsageError
from edgekd.models.checkpoint import Checkpoint
from edgekd.recipe.settings import DataSettings, RecipeSettings
from edgekd.runs import Run, Stage
from edgekd.schemes import Scheme
from edgekd.stages.distill import Distilled, Guidance, distilled

INVERSION = Stage("inversion", "Synthetic images", version=inversion.VERSION)
SYNTHETIC = Stage("synthetic", "Synthetic data set", version=1)
_COPIED_AT_ONCE = 256


class Parameters(InversionSettings):
    """Settings of the images only: the student learns from them as `distill` sets it."""


def check_classes(parameters: Parameters, classes: tuple[str, ...]) -> None:
    """Raises UsageError for fewer images than classes."""
    if parameters.images is not None and parameters.images < len(classes):
        raise UsageError(
            "data-free would make fewer images than there are classes",
            found=f"images: {parameters.images}, and {len(classes)} classes",
            hint=f"leave images out: then it makes {inversion.IMAGES_PER_CLASS} of each class",
        )


def check_networks(recipe: RecipeSettings, parameters: Parameters, teacher: nn.Module, data: Dataset) -> None:
    """Raises ModelError where the teacher has no batch norms."""
    check_batch_norms(teacher)


def distill(run: Run, teacher: Checkpoint, data: Dataset, parameters: Parameters) -> Distilled:
    """One stage makes images from the teacher, one a data set of them, one distills the student on it."""
    recipe = run.recipe
    flip = mirrors(recipe.data)
    # Sizes and normalisation are the teacher's own, and the real images are not an input: others give the same stage.
    images = run.stage(
        INVERSION,
        SyntheticImages,
        settings={**parameters.model_dump(mode="json"), "flip": flip},
        inputs={"teacher": teacher},
        make=lambda out: inversion.synthesise(
            teacher, parameters, out, flip=flip, progress=run.progress(INVERSION.name)
        ),
    )
    synthetic = run.stage(
        SYNTHETIC,
        Dataset,
        settings={},
        inputs={"images": images, "data": data},
        make=lambda out: compose(images, data, out),
    )
    student = distilled(run, recipe.student, Guidance(teacher, synthetic, recipe.distill.objective), recipe.distill)
    return Distilled(student, learns_from=synthetic)


def mirrors(settings: DataSettings) -> bool:
    """Whether a mirrored image keeps its class."""
    if settings.augment.flip is not None:
        return settings.augment.flip
    return source_named(settings.source).mirror


def compose(images: SyntheticImages, data: Dataset, out: Path) -> Dataset:
    """A data set with the synthetic images to train on, and the real validation and test splits for evaluation.

    Neither its contents nor its digest depend on the real training split.

    Args:
        images: the synthetic ones.
        data: the real data set.
        out: an empty folder, which becomes the data set.

    Raises:
        DataError: the images are of another size or normalised otherwise than the data, or an image of a streamed
            split cannot be read any more.
        OSError: no room on the disk.
    """
    real, made = data.details, images.details
    if made.preprocessing != real.preprocessing:
        raise DataError(
            "the synthetic images differ from the data's: their teacher has another preprocessing",
            found=made.preprocessing,
            allowed=real.preprocessing,
            hint="set data.image_size, data.mean and data.std to the teacher's",
        )
    link_split(images.path, out, inversion.SPLIT)
    for name in ("validation", "test"):
        if real.storage == "cached":
            link_split(data.path, out, name)
        else:
            _decode(data, name, out)
    details = DatasetDetails(
        source=real.source,
        classes=real.classes,
        preprocessing=real.preprocessing,
        mirror=real.mirror,
        storage="cached",
        counts={**real.counts, **made.counts},
        synthetic=True,
        teacher=made.teacher,
    )
    return Dataset.seal(out, details=details, metrics=images.metrics)


def _decode(data: Dataset, name: str, out: Path) -> None:
    """A streamed split, decoded once."""
    split = open_split(data, name)
    with storage.scratch(out / ".decoded.npy", (len(split), *data.details.preprocessing.stored)) as pixels:
        for start in range(0, len(split), _COPIED_AT_ONCE):
            rows = np.arange(start, min(start + _COPIED_AT_ONCE, len(split)))
            pixels[rows] = split.pixels(rows)
        (out / ".decoded.npy").rename(storage.pixels_file(out, name))
    np.save(storage.labels_file(out, name), split.labels)
    names = storage.names_file(data.path, name)
    if names.exists():
        storage.link_or_copy(names, storage.names_file(out, name))


SCHEME = Scheme(
    parameters=Parameters,
    distill=distill,
    needs_teacher=True,
    one_teacher=True,
    sees_labels=False,
    check_classes=check_classes,
    check_networks=check_networks,
)
