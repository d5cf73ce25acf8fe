from __future__ import annotations

import pytest

from edgekd.data.findings import LabelledImage
from edgekd.data.quality import broken, conflicting, cropped, few_images, missing_classes, rare_classes
from edgekd.data.sources import SplitName
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

SETTINGS = DataSettings(source="image-folder")
SETS = DataSettings(source="csv-file", task="multilabel")


def splits(train: int, validation: int, test: int, classes: int = 2) -> dict[SplitName, dict[str, int]]:
    sizes: dict[SplitName, int] = {"train": train, "validation": validation, "test": test}
    return {split: {f"c{number}": size for number in range(classes)} for split, size in sizes.items()}


def few(counts: dict[SplitName, dict[str, int]], settings: DataSettings = SETTINGS, **options: bool) -> list[str]:
    return few_images(counts, {split: sum(own.values()) for split, own in counts.items()}, settings, **options)


def test_splits_that_are_large_enough() -> None:
    assert few(splits(10, 50, 50)) == []
    assert few(splits(16, 50, 50), labelled=False) == []


def test_few_images_to_measure_on_and_to_train_on() -> None:
    measured, trained = few(splits(1, 1, 1, classes=4))
    assert measured == (
        "Only 4 validation images (1 per class) and 4 test images (1 per class): the 95 % interval of an accuracy on 4 "
        "is up to 70 points wide, so that models can hardly be told apart. Add images."
    )
    assert trained.startswith("4 of 4 classes have fewer than 10 training images: c0 (1), c1 (1), c2 (1), c3 (1). ")


def test_only_the_small_split_is_named() -> None:
    (measured,) = few({**splits(50, 50, 0), "test": {"c0": 60, "c1": 39}})
    assert measured.startswith("Only 99 test images (39 to 60 per class): the 95 % interval of an accuracy on 99 is up")
    (measured,) = few(splits(50, 20, 50), SETS)
    assert measured.startswith("Only 40 validation images (20 per class): average precisions on so few")
    (trained,) = few({**splits(0, 50, 50), "train": {"c0": 12, "c1": 9}})
    assert trained.startswith("1 of 2 classes has fewer than 10 training images: c1 (9).")


def test_images_without_labels_are_no_classes() -> None:
    measured, calibrated = few(splits(3, 1, 1, classes=1), labelled=False)
    assert measured.startswith("Only 1 validation image and 1 test image: the 95 % interval of an agreement on 1 is")
    assert calibrated.startswith("Only 3 images to calibrate on")
    assert "class" not in measured + calibrated


def test_a_rare_class_is_named_once() -> None:
    counts = {**splits(0, 50, 50), "train": {"c0": 200, "c1": 5}}
    assert few(counts) == []
    (rare,) = rare_classes(counts["train"], SETTINGS)
    assert rare.startswith("1 of 2 classes has less than a tenth of the training images of c0 (200): c1 (5).")


def test_classes_that_a_split_lacks() -> None:
    counts = {**splits(4, 4, 4), "test": {"c0": 0, "c1": 4}}
    assert missing_classes(counts) == [
        "The test split has no image of c0: what is measured on it says nothing about this class."
    ]
    with pytest.raises(DataError, match="train split has no image of 1 of 2 classes\n  found: none of c1"):
        missing_classes({"train": {"c0": 3, "c1": 0}})
    with pytest.raises(DataError, match="^the test split has no image\n  next: add images; leaked"):
        missing_classes({"test": {"the images": 0}}, labelled=False)


def test_images_of_two_classes_are_named() -> None:
    equal = [LabelledImage(file=f"{label}/7.jpg", label=label) for label in ("cat", "dog")]
    assert conflicting(0, []) == []
    assert conflicting(1, [equal]) == [
        "1 image occurs with more than one label. Equal are cat/7.jpg (cat), dog/7.jpg (dog). Remove the wrong ones."
    ]
    (many,) = conflicting(2000, [equal] * 50)
    assert many.startswith("2,000 images occur with") and many.count("cat/7.jpg") == 5 and "; and 1,995 more." in many


def test_broken_images_are_named() -> None:
    assert broken([]) == []
    assert broken(["a.png: torn"]) == ["1 image cannot be read and is left out: a.png: torn."]
    (many,) = broken([f"{number}.png: torn\n" for number in range(7)])
    assert many.startswith("7 images cannot be read and are left out: 0.png: torn\\n; 1.png")
    assert many.endswith("4.png: torn\\n; and 2 more.")


def test_a_crop_that_discards_a_third() -> None:
    assert cropped(0.3) == [] and "discards 40%" in cropped(0.4)[0]
