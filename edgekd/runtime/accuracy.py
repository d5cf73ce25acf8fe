"""Accuracy of a loaded bundle on a folder of images, on the device itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import DataError
from edgekd.runtime.images import LeftOut, find_images, is_skipped
from edgekd.runtime.model import Model


@dataclass(frozen=True)
class FolderAccuracy:
    """The accuracy of a bundle on a folder of images.

    Attributes:
        accuracy: fraction (0 to 1) of the readable images whose predicted class is their folder's name.
        samples: the number of readable images.
        variant, engine: what computed the predictions.
        unreadable: paths of the images that were skipped.
        left_out: what was found beside the images; "" for nothing.
    """

    accuracy: float
    samples: int
    variant: str
    engine: str
    unreadable: tuple[str, ...]
    left_out: str = ""


def measure(model: Model, folder: Path) -> FolderAccuracy:
    """Classify every image in folder/<class>/.

    Args:
        model: a loaded bundle.
        folder: one subfolder per class, by its name in the bundle, with images at any depth.

    Raises:
        DataError: not a folder, no readable images, or a subfolder that is not one of the bundle's classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", allowed="a folder with one subfolder of images per class")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_skipped(path.name))
    if unknown := sorted(set(classes) - set(model.classes)):
        raise DataError(
            f"{folder} has classes that this bundle does not have",
            found=", ".join(unknown[:10]),
            allowed=", ".join(model.classes[:20]),
        )
    correct, count, left_out = 0, 0, LeftOut()
    unreadable = []
    for name in classes:
        found = find_images(folder / name)
        left_out += found.left_out
        for file in found.images:
            try:
                correct += model(file).label == name
                count += 1
            except DataError:
                unreadable.append(str(file))
    if not count:
        raise DataError(
            f"{folder} has no readable images",
            found="; ".join(filter(None, (f"{len(unreadable)} unreadable ones", str(left_out)))),
        )
    return FolderAccuracy(correct / count, count, model.variant, model.engine, tuple(unreadable), str(left_out))
