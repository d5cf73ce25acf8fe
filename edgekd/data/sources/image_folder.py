"""One folder per class: root/<class>/…, or root/train/<class>/… with validation (val, valid) and test beside train.

Images may lie at any depth below their class's folder. Hidden files are skipped, links are followed. The classes are
the folders' names, sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.data.sources import Labels, RawData, Samples, Source, SplitName
from edgekd.data.sources._files import clear_read_errors, decode, files_fingerprint, require_root
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

_LAYOUT = "root/<class>/<images>, or root/train/<class>/<images> with validation and test beside train"
_SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
Tree = dict[str, list[Path]]


class FolderSamples:
    """Image files and their labels; names are relative to `root`."""

    def __init__(self, root: Path, files: Sequence[str], labels: Labels) -> None:
        self.labels = labels
        self._root = root
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> Image.Image:
        return decode(self._root / self._files[index])

    def name(self, index: int) -> str:
        return self._files[index]


def fingerprint(settings: DataSettings) -> Json:
    """The paths, sizes and times of the image files; their content is not read.

    Args:
        settings: of the data; its root is the folder of images.

    Raises:
        DataError: there is no root, or it has not the layout of an image folder.
    """
    root = require_root(settings, _LAYOUT)
    with clear_read_errors(root):
        trees = [_classes(folder) for folder in _splits(root).values()]
        return files_fingerprint(root, (file for tree in trees for files in tree.values() for file in files))


def read(settings: DataSettings) -> RawData:
    """The labelled images of all splits; a subfolder is a class, images are decoded later, one by one.

    Args:
        settings: of the data; its root is the folder of images.

    Raises:
        DataError: no images, a class without images, or a class in validation or test that train lacks.
    """
    root = require_root(settings, _LAYOUT)
    with clear_read_errors(root):
        trees = {split: _classes(folder) for split, folder in _splits(root).items()}
    classes = tuple(sorted(trees["train"]))
    splits: dict[SplitName, Samples] = {}
    for split, tree in trees.items():
        if unknown := sorted(set(tree) - set(classes)):
            raise DataError(f"{root}: the {split} split has classes that train lacks", found=_some(unknown))
        splits[split] = _samples(root, tree, classes)
    return RawData(classes, splits)


def _splits(root: Path) -> dict[SplitName, Path]:
    folders = _folders(root)
    named = [folder for folder in folders if folder.name.lower() in _SPLIT_NAMES]
    train = [folder for folder in named if folder.name.lower() == "train"]
    if named == folders and folders and not train:
        raise DataError(f"{root} has no train folder", found=_some([f.name for f in folders]), allowed=_LAYOUT)
    # A folder named train that holds images itself is a class, of locomotives.
    if not train or not _folders(train[0]) or any(_is_image(file) for file in train[0].iterdir()):
        return {"train": root}
    if others := [folder.name for folder in folders if folder not in named]:
        raise DataError(
            f"{root} has folders beside train that are not splits",
            found=_some(others),
            allowed=", ".join(_SPLIT_NAMES),
            hint="move them elsewhere, or rename train if it is a class",
        )
    splits = {_SPLIT_NAMES[folder.name.lower()]: folder for folder in named}
    if len(splits) < len(named):
        raise DataError(f"{root} has two folders for one split", found=_some([f.name for f in named]))
    return splits


def _classes(folder: Path) -> Tree:
    tree = {child.name: sorted(_images(child, ())) for child in _folders(folder)}
    if not tree:
        loose = sum(_is_image(file) for file in folder.iterdir())
        found = f"{loose} images outside any class folder" if loose else "no folders in it"
        raise DataError(f"{folder} has no classes", found=found, allowed=_LAYOUT)
    if empty := [name for name, files in tree.items() if not files]:
        raise DataError(
            f"{folder} has class folders without images",
            found=_some(empty),
            allowed=f"files {', '.join(SUFFIXES)}",
            hint="add images to them, or move the folders elsewhere",
        )
    return tree


def _samples(root: Path, tree: Tree, classes: tuple[str, ...]) -> FolderSamples:
    labelled = [(file, label) for label, name in enumerate(classes) for file in tree.get(name, [])]
    files = [file.relative_to(root).as_posix() for file, _ in labelled]
    return FolderSamples(root, files, np.array([label for _, label in labelled], dtype=np.int64))


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")


def _images(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Every image below a folder; links that lead back to a parent folder are not followed."""
    here = folder.resolve()
    if here in above:
        return
    for child in folder.iterdir():
        if child.name[0] == ".":
            continue
        if child.is_dir():
            yield from _images(child, (*above, here))
        elif _is_image(child):
            yield child


def _is_image(file: Path) -> bool:
    """Whether a file counts as an image; a broken link does, and is reported as a broken image."""
    named = file.suffix.lower() in SUFFIXES and file.name[0] != "."
    return named and not file.is_dir() and (file.is_file() or file.is_symlink())


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True)
