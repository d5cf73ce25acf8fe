"""Accuracy of a loaded bundle on a folder of images, on the device itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import DataError
from edgekd.runtime.model import Model

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True)
class FolderAccuracy:
    """`accuracy` is the share of the readable images whose likeliest class is their folder's name."""

    accuracy: float
    samples: int
    variant: str
    engine: str
    unreadable: tuple[str, ...]


def measure(model: Model, folder: Path) -> FolderAccuracy:
    """Ask `model` about every image in folder/<class>/.

    Raises:
        DataError: no folder, no images, or folders that are none of the bundle's classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", allowed="a folder with one subfolder of images per class")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if unknown := sorted(set(classes) - set(model.classes)):
        raise DataError(
            f"{folder} has classes that this bundle does not know",
            found=", ".join(unknown[:10]),
            allowed=", ".join(model.classes[:20]),
        )
    right, count = 0, 0
    unreadable = []
    for name in classes:
        for file in sorted((folder / name).rglob("*")):
            if file.suffix.lower() not in _SUFFIXES:
                continue
            try:
                right += model(file).label == name
                count += 1
            except DataError:
                unreadable.append(str(file))
    if not count:
        raise DataError(f"there are no readable images in {folder}", found=f"{len(unreadable)} unreadable ones")
    return FolderAccuracy(right / count, count, model.variant, model.engine, tuple(unreadable))
