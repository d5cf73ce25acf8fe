"""The code that CIFAR-10 and CIFAR-100 share: torchvision reads both."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from edgekd.data.sources import RawData, Samples, Source, SplitName
from edgekd.data.sources._arrays import ArraySamples
from edgekd.data.sources._files import require_root
from edgekd.errors import DataError, require
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json


def source(class_name: str) -> Source:
    """The source of a data set.

    Args:
        class_name: of torchvision's class that reads it.
    """
    fingerprint, read = partial(_fingerprint, class_name=class_name), partial(_read, class_name=class_name)
    return Source(read=read, fingerprint=fingerprint, mirror=True)


def _fingerprint(settings: DataSettings, *, class_name: str) -> Json:
    """The archive's checksum: torchvision accepts no other content.

    Raises:
        DataError: the files are missing and data.download is false, or there is no root.
    """
    dataset = _dataset(class_name)
    if not settings.download:
        folder = require_root(settings, _holds(dataset)) / dataset.base_folder
        if not folder.is_dir():
            raise _incomplete(settings, dataset, f"no {dataset.base_folder} in it")
    elif settings.root is None:
        raise DataError(f"downloading {settings.source} needs a root", hint="set data.root to a folder for the files")
    return {"archive_md5": dataset.tgz_md5}


def _read(settings: DataSettings, *, class_name: str) -> RawData:
    """Raises DataError: the files are missing or changed, or cannot be downloaded."""
    _fingerprint(settings, class_name=class_name)
    dataset = _dataset(class_name)
    splits: dict[SplitName, Samples] = {}
    for split, train in (("train", True), ("test", False)):
        try:
            # The files are pickles. torchvision opens only those whose checksum is the published one.
            content = dataset(str(settings.root), train=train, download=settings.download)
        except (RuntimeError, OSError) as error:
            raise _incomplete(settings, dataset, str(error).splitlines()[0]) from None
        splits["train" if train else "test"] = ArraySamples(split, content.data, np.asarray(content.targets))
    return RawData(tuple(content.classes), splits)


def _dataset(class_name: str) -> Any:
    return getattr(require("torchvision.datasets", purpose="the source", extra="train"), class_name)


def _holds(dataset: Any) -> str:
    return f"the folder that holds {dataset.base_folder}, as torchvision unpacks it"


def _incomplete(settings: DataSettings, dataset: Any, found: str) -> DataError:
    return DataError(
        f"{settings.root} does not hold all files of {settings.source}",
        found=found,
        allowed=_holds(dataset),
        hint=f"set data.download: true, or unpack {dataset.url} there",
    )
