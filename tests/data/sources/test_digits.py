from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_digits

from edgekd.data.sources import digits
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings


def test_values_fill_the_range() -> None:
    raw = digits.read(DataSettings(source="digits"))
    train = raw.splits["train"]
    assert list(raw.splits) == ["train"] and raw.classes == tuple("0123456789") and len(train) == 1797
    expected = np.rint(load_digits().images[5] * 255 / 16)
    assert np.array_equal(np.asarray(train.image(5)), expected)
    assert np.asarray(train.image(0)).max() <= 255 and train.labels.dtype == np.int64


def test_the_version_is_the_fingerprint() -> None:
    assert digits.fingerprint(DataSettings(source="digits")) == {"scikit-learn": sklearn.__version__}


def test_a_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no root"):
        digits.read(DataSettings(source="digits", root=tmp_path))
