"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels that come with the package."""

from __future__ import annotations

import numpy as np

from edgekd.data.sources import RawData, Source
from edgekd.data.sources._arrays import ArraySamples
from edgekd.errors import DataError, require
from edgekd.recipe.settings import DataSettings
from edgekd.store.artifacts import Json

_WHITE = 16.0


def fingerprint(settings: DataSettings) -> Json:
    """scikit-learn's version, which the images are part of.

    Args:
        settings: of the data, without a root.

    Raises:
        DataError: a root is set; the source has none.
        MissingDependencyError: scikit-learn is not installed.
    """
    if settings.root is not None:
        raise DataError(
            "the source digits takes no root",
            found=settings.root,
            hint="remove data.root, or use image-folder",
        )
    sklearn = require("sklearn", purpose="the source digits", extra="train")
    return {"scikit-learn": sklearn.__version__}


def read(settings: DataSettings) -> RawData:
    """The 1,797 images of 8×8 pixels in 10 classes, as one split, scaled from 0..16 to 0..255.

    Args and Raises as fingerprint().
    """
    fingerprint(settings)
    digits = require("sklearn.datasets", purpose="the source digits", extra="train").load_digits()
    images = np.rint(digits.images * (255.0 / _WHITE)).astype(np.uint8)
    classes = tuple(str(name) for name in digits.target_names)
    return RawData(classes, {"train": ArraySamples("digits", images, digits.target)})


SOURCE = Source(read=read, fingerprint=fingerprint, mirror=False)
