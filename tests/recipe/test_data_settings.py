"""The data section, and how it makes the networks see an image."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.recipe.data_settings import DataSettings
from edgekd.runtime.preprocess import IMAGENET_GREY, Preprocessing


def settings(**values: Any) -> DataSettings:
    return DataSettings.model_validate({"source": "digits", **values})


def test_larger_images_lose_an_eighth_at_the_border_and_small_ones_nothing() -> None:
    assert settings().preprocessing == Preprocessing((224, 224), (256, 256))
    assert settings(image_size=96).preprocessing == Preprocessing((96, 96), (96, 96))
    assert settings(image_size=[96, 160]).preprocessing == Preprocessing((96, 160), (109, 182))
    assert settings(image_size=32, crop_pct=0.5).preprocessing == Preprocessing((32, 32), (64, 64))
    assert settings(image_size=299, crop_pct=299 / 342).preprocessing.resize == (342, 342)


def test_what_keeps_all_of_an_image_crops_nothing() -> None:
    for fit in ("pad", "squash"):
        assert settings(image_size=[200, 300], fit=fit).preprocessing.resize == (200, 300)
        with pytest.raises(ValidationError, match=f"fit: {fit} keeps all of an image: remove crop_pct"):
            settings(fit=fit, crop_pct=0.9)


def test_means_are_as_many_as_channels() -> None:
    grey = settings(channels=1).preprocessing
    assert (grey.mean, grey.std) == IMAGENET_GREY
    assert settings(channels=1, mean=[0.3], std=[0.2]).preprocessing.mean == (0.3,)
    with pytest.raises(ValidationError, match="mean has 3 values, and channels is 1"):
        settings(channels=1, mean=[0.3, 0.3, 0.3])
    with pytest.raises(ValidationError, match="std has 1 values, and channels is 3"):
        settings(std=[0.3])
    with pytest.raises(ValidationError, match="divide means of values up to 255 by 255"):
        settings(mean=[127.5, 127.5, 127.5])
    with pytest.raises(ValidationError, match="std must be above 0"):
        settings(std=[0.3, 0.0, 0.3])
    for wrong in (4, True, "3"):
        with pytest.raises(ValidationError):
            settings(channels=wrong)


def test_classes_are_a_list_or_the_lines_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n dog \n\nemu\n", encoding="utf-8")
    for given in (["cat", "dog", "emu"], str(tmp_path / "names.txt")):
        assert DataSettings.model_validate({"source": "unlabelled", "classes": given}).classes == ("cat", "dog", "emu")
    (tmp_path / "one.txt").write_text("cat")
    for given, message in (
        (["cat", "dog", "cat"], "a name stands there twice: cat"),
        (["cat"], r'two names or more, or a file with one per line; found: \["cat"\]'),
        (7, "found: 7"),
        ([1, 2], r"found: \[1, 2\]"),
        (str(tmp_path / "one.txt"), "found: 1 names"),
        (str(tmp_path / "gone.txt"), r"gone.txt cannot be read as a file of names(.*)No such file"),
    ):
        with pytest.raises(ValidationError, match=message):
            DataSettings.model_validate({"source": "unlabelled", "classes": given})
