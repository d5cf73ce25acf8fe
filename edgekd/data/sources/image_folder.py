"""One folder per class: root/<class>/…, or root/train/<class>/… with validation (val, valid) and test beside train.

Images may lie at any depth below their class's folder; what an image is: edgekd.runtime.images. The classes are the
folders' names, in the order of data.classes or data.class_order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.data.class_names import check_known
from edgekd.data.class_order import arranged
from edgekd.data.sources import Labels, RawData, Samples, Source, SplitName
from edgekd.data.sources._files import SPLIT_WORDS, files_fingerprint, require_root
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runtime.images import (
    SUFFIXES,
    Found,
    LeftOut,
    clear_read_errors,
    find_images,
    is_image,
    is_skipped,
    leads_back,
    left_beside,
    open_upright,
)
from edgekd.store.artifacts import Json
from edgekd.wording import counted

_LAYOUT = "root/<class>/<images>, or root/train/<class>/<images> with validation and test beside train"
# By class.
Tree = Mapping[str, Found]


class FolderSamples:
    """Image files and their labels; names are relative to `root`."""

    def __init__(self, root: Path, files: Sequence[str], labels: Labels) -> None:
        self.labels = labels
        self._root = root
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> Image.Image:
        return open_upright(self._root / self._files[index])

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
        trees = [_classes(folder, (root, folder)) for folder in _splits(root).values()]
        return files_fingerprint(root, (file for tree in trees for found in tree.values() for file in found.images))


def read(settings: DataSettings) -> RawData:
    """The labelled images of all splits; a subfolder is a class, images are decoded later, one by one.

    Args:
        settings: of the data; its root is the folder of images.

    Raises:
        DataError: no images, a class without images, or a class in validation or test that train lacks.
    """
    root = require_root(settings, _LAYOUT)
    with clear_read_errors(root):
        folders = _splits(root)
        trees = {split: _classes(folder, (root, folder)) for split, folder in folders.items()}
        beside = [left_beside(folder, (root,)) for folder in sorted({root, *folders.values()})]
    classes = arranged(trees["train"], settings)
    if len(classes) < 2:
        _refuse_one_class(folders["train"], classes[0])
    splits: dict[SplitName, Samples] = {}
    for split, tree in trees.items():
        check_known(tree, classes, split=split, where=str(root), remedy="move their folders elsewhere")
        splits[split] = _samples(root, tree, classes)
    left_out = [found.left_out for tree in trees.values() for found in tree.values()]
    return RawData(classes, splits, sum([*beside, *left_out], LeftOut()))


def class_names(settings: DataSettings) -> tuple[str, ...]:
    """The names of the training split's folders, in the order of the labels. Args and Raises as read()."""
    root = require_root(settings, _LAYOUT)
    with clear_read_errors(root):
        return arranged((folder.name for folder in _folders(_splits(root)["train"])), settings)


def _refuse_one_class(folder: Path, name: str) -> None:
    inner = _folders(folder / name)
    raise DataError(
        f"{folder} has one class only, and a classifier needs at least two classes",
        found=name,
        allowed=_LAYOUT,
        hint=f"set data.root to {folder / name}, which has {len(inner)} folders" if len(inner) > 1 else None,
    )


def _splits(root: Path) -> dict[SplitName, Path]:
    folders = _folders(root)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS]
    train = [folder for folder in named if folder.name.lower() == "train"]
    if named == folders and folders and not train:
        raise DataError(f"{root} has no train folder", found=_some([f.name for f in folders]), allowed=_LAYOUT)
    # A folder named train that holds images itself is a class, of locomotives.
    if (
        not train
        or not _folders(train[0])
        or any(file.is_file() and not is_skipped(file.name) and is_image(file) for file in train[0].iterdir())
    ):
        return {"train": root}
    if others := [folder.name for folder in folders if folder not in named]:
        raise DataError(
            f"{root} has folders beside train that are not splits",
            found=_some(others),
            allowed=", ".join(SPLIT_WORDS),
            hint="move them elsewhere, or rename train if it is a class",
        )
    splits = {SPLIT_WORDS[folder.name.lower()]: folder for folder in named}
    if len(splits) < len(named):
        raise DataError(f"{root} has two folders for one split", found=_some([f.name for f in named]))
    return splits


def _classes(folder: Path, above: tuple[Path, ...]) -> Tree:
    tree = {child.name: find_images(child, above) for child in _folders(folder)}
    if not tree:
        loose = sum(file.is_file() and not is_skipped(file.name) and is_image(file) for file in folder.iterdir())
        found = f"{counted(loose, 'image')} outside any class folder" if loose else "no folders in it"
        hint = "sort them into folders; or, to quantize a trained model without labels, see docs/data.md"
        raise DataError(f"{folder} has no classes", found=found, allowed=_LAYOUT, hint=hint if loose else None)
    if empty := [
        f"{name} ({found.left_out})" if str(found.left_out) else name
        for name, found in tree.items()
        if not found.images
    ]:
        raise DataError(
            f"{folder} has class folders without images",
            found=_some(empty),
            allowed=f"files {', '.join(sorted(SUFFIXES))}, or with such content",
            hint="add images to them, or move the folders elsewhere",
        )
    return tree


def _samples(root: Path, tree: Tree, classes: tuple[str, ...]) -> FolderSamples:
    labelled = [
        (file, label) for label, name in enumerate(classes) for file in (tree[name].images if name in tree else ())
    ]
    files = [file.relative_to(root).as_posix() for file, _ in labelled]
    return FolderSamples(root, files, np.array([label for _, label in labelled], dtype=np.int64))


def _folders(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.is_dir() and not is_skipped(child.name) and not leads_back(child)
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=True, class_names=class_names)
