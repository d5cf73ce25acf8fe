"""A bundle of several labels per image: its answers, and its quality on a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import seal_bundle

from edgekd.errors import BundleError, DataError, UsageError
from edgekd.runtime import load
from edgekd.runtime.accuracy import measure
from edgekd.runtime.set_scores import measure_sets


def with_sets(bundle: Path, thresholds: object = (0.6, 0.6, 0.6), task: str = "multilabel") -> Path:
    """The linear bundle, whose logits are the means of the channels, as one of several labels per image."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["task"] = task
    manifest["variants"]["fp32"]["thresholds"] = thresholds
    seal_bundle(bundle, manifest)
    return bundle


@pytest.fixture
def sets_bundle(linear_bundle: Path) -> Path:
    return with_sets(linear_bundle)


def write(folder: Path, colours: dict[str, tuple[int, int, int]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")


def test_the_classes_whose_sigmoid_reaches_their_threshold(sets_bundle: Path) -> None:
    model = load(sets_bundle)
    one, none = model([Image.new("RGB", (8, 8), colour) for colour in ((255, 255, 0), (0, 0, 51))])
    assert one.scores == pytest.approx([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-1.0)), 0.5], abs=1e-6)
    assert one.labels == ("red", "green") and none.labels == ()
    assert str(one) == "red 73.1 %, green 73.1 %" and str(none) == "none of the classes"
    assert none.top(1) == [("blue", pytest.approx(1 / (1 + np.exp(-0.2)), abs=1e-6))]
    with pytest.raises(UsageError, match="several of this bundle's classes, or none\n  next: use labels"):
        _ = one.label


def test_with_one_label_per_image_labels_is_that_one(linear_bundle: Path) -> None:
    prediction = load(linear_bundle)(Image.new("RGB", (8, 8), (0, 200, 0)))
    assert prediction.labels == ("green",) and prediction.thresholds is None


@pytest.mark.parametrize(
    ("thresholds", "task", "message"),
    [
        ([0.5, 0.5], "multilabel", "thresholds is not one probability for each class"),
        ([0.5, 0.5, 1.5], "multilabel", "thresholds is 1.5, not a number from 0 to 1"),
        (None, "multilabel", "thresholds is None, not a list"),
        ([0.5] * 3, "several", "task is 'several', not one of single-label, multilabel"),
    ],
)
def test_a_manifest_that_is_not_valid(linear_bundle: Path, thresholds: object, task: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load(with_sets(linear_bundle, thresholds, task))


def test_the_quality_on_a_table_by_hand(sets_bundle: Path, tmp_path: Path) -> None:
    colours = {"a": (255, 0, 0), "b": (200, 255, 0), "c": (100, 0, 0), "d": (0, 0, 255)}
    write(tmp_path / "own", colours)
    (tmp_path / "own/broken.png").write_bytes(b"no image")
    table = tmp_path / "own/labels.csv"
    table.write_text("file,label\na.png,red\nb.png,green\nc.png,red|blue\nd.png,\nbroken.png,red\n")
    found = measure_sets(load(sets_bundle), table)
    # red by score: a (there), b (not), c (there), d: 1/2 (1 + 2/3). green: b is first: 1.
    # blue: d, then a, b and c at once: 1/4.
    assert {name: each.average_precision for name, each in found.per_class.items()} == pytest.approx(
        {"red": 5 / 6, "green": 1.0, "blue": 1 / 4}, abs=1e-6
    )
    assert found.mean_average_precision == pytest.approx((5 / 6 + 1 + 1 / 4) / 3)
    # Above 0.6 are logits above 0.405: a red, b red and green, d blue. Right: a red, b green.
    assert found.micro_f1 == pytest.approx(2 * 2 / (4 + 4))
    assert found.macro_f1 == pytest.approx((2 * 1 / (2 + 2) + 1 + 0) / 3)
    wrong = [(each.file, *((one.label, one.given) for one in each.wrong)) for each in found.worst]
    assert wrong == [
        ("d.png", ("blue", True)),
        ("b.png", ("red", True)),
        ("c.png", ("blue", False), ("red", False)),
    ]
    assert found.per_class["red"].samples == 2 and found.calibration is not None and found.calibration.labels == 12
    assert found.samples == 4 and found.unreadable == (str(tmp_path / "own/broken.png"),) and found.split == ""


def test_the_test_split_of_a_table(sets_bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "own", {"a": (255, 0, 0), "b": (0, 255, 0)})
    table = tmp_path / "own/sets.csv"
    table.write_text("path;red;green;blue;split\na.png;1;0;0;train\nb.png;0;1;0;Test\n")
    found = measure_sets(load(sets_bundle), table)
    assert (found.samples, found.split, found.unmeasured) == (1, "test", ("red", "blue"))
    other = measure_sets(load(sets_bundle), table, columns=("path", None))
    assert other == found


def test_what_cannot_be_measured(sets_bundle: Path, linear_bundle: Path, tmp_path: Path) -> None:
    model, own = load(sets_bundle), tmp_path / "own"
    write(own, {"a": (255, 0, 0)})
    table = own / "labels.csv"
    table.write_text("file,label\na.png,red|yellow\n")
    with pytest.raises(DataError, match="classes that this bundle does not have\n  found: yellow"):
        measure_sets(model, table)
    table.write_text("file,label\ngone.png,red\n")
    with pytest.raises(DataError, match="no readable images\n  found: 1 unreadable"):
        measure_sets(model, table)
    with pytest.raises(DataError, match="is not a table\n  found: a folder"):
        measure_sets(model, own)
    with pytest.raises(UsageError, match="allowed: a table of images and labels"):
        measure(model, own)
    with pytest.raises(UsageError, match="one label per image(?s:.)*one subfolder of images per class"):
        measure_sets(load(with_sets(linear_bundle, None, "single-label")), table)
