"""What holds for every source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd import plugins
from edgekd.data.sources import RawData, Source, source_named
from edgekd.data.sources._arrays import ArraySamples
from edgekd.errors import DataError, PluginError, UsageError
from edgekd.recipe.settings import DataSettings

WITH_FOLDER = [name for name in plugins.names("source") if name not in ("csv-file", "digits")]


def samples(*labels: int) -> ArraySamples:
    return ArraySamples("train", np.zeros((len(labels), 2, 2), np.uint8), np.array(labels))


def test_names_are_the_files() -> None:
    assert plugins.names("source") == (
        "cifar10", "cifar100", "csv-file", "digits", "fashion-mnist", "image-folder", "parquet", "unlabelled",
    )  # fmt: skip


@pytest.mark.parametrize("name", WITH_FOLDER)
@pytest.mark.parametrize("call", ["fingerprint", "read"])
def test_a_missing_root_is_named(name: str, call: str, tmp_path: Path) -> None:
    function = getattr(source_named(name), call)
    with pytest.raises(DataError, match="needs a root"):
        function(DataSettings(source=name))
    with pytest.raises(DataError, match="nowhere is not a folder"):
        function(DataSettings(source=name, root=tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a file"):
        function(DataSettings(source=name, root=tmp_path / "file"))
    with pytest.raises(DataError):
        function(DataSettings(source=name, root=tmp_path))


def test_the_protocol_is_light() -> None:
    code = "import sys, edgekd.data.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, -1)])
def test_a_label_that_is_not_a_class(labels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"train\[\d\]"):
        RawData(("a", "b"), {"train": samples(*labels)})


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 1], "list"),
        (np.array([0.0, 1.0]), "float64"),
        (np.array([[0], [1]]), "2, 1"),
    ],
)
def test_labels_that_are_not_one_number_per_image(labels: object, found: str) -> None:
    wrong = samples(0, 1)
    wrong.labels = labels  # type: ignore[assignment]
    with pytest.raises(
        DataError, match=f"labels of the train split are wrong\n  found: .*{found}(?s:.)*array of 2 whole"
    ):
        RawData(("a", "b"), {"train": wrong})


def test_splits_and_classes_of_other_kinds() -> None:
    with pytest.raises(DataError, match=r"split of another name\n  found: \['valid'\]\n  allowed: train, val"):
        RawData(("a", "b"), {"train": samples(0, 1), "valid": samples(0, 1)})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="a class has no name\n  found: 1"):
        RawData(("a", 1), {"train": samples(0, 1)})  # type: ignore[arg-type]


def test_too_few_classes_no_images_and_equal_names() -> None:
    with pytest.raises(DataError, match="two classes"):
        RawData(("a",), {"train": samples(0)})
    with pytest.raises(DataError, match="no training images"):
        RawData(("a", "b"), {"test": samples(0, 1)})
    with pytest.raises(DataError, match="no training images"):
        RawData(("a", "b"), {"train": samples()})
    with pytest.raises(DataError, match="same name"):
        RawData(("a", "a"), {"train": samples(0, 1)})


def test_settings_that_a_source_would_ignore() -> None:
    for name, ignored in (
        ("digits", ("task", "class_order", "classes")),
        ("unlabelled", ("task", "class_order")),
    ):
        source = source_named(name)
        given = {"task": "multilabel", "class_order": "natural", "classes": ["a", "b"]}
        assert source.unused == ignored
        with pytest.raises(UsageError, match=f"{name} does not use {', '.join(ignored)}\n  next: remove them"):
            source.check(source.settings.model_validate({"source": name, **given}))
    assert source_named("csv-file").unused == ()


def test_options_that_would_hide_a_misspelt_one() -> None:
    class Loose(DataSettings):
        model_config = {"extra": "allow"}

    source = Source(read=lambda _: None, fingerprint=lambda _: {}, mirror=True, settings=Loose)  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginError, match="its settings, Loose, accept unknown keys"):
        source.check_declaration()


def test_every_option_is_described() -> None:
    own = [source_named(name).settings for name in plugins.names("source")]
    options = {key: field.description for section in own for key, field in section.model_fields.items()}
    assert "delimiter" in options and all(options.values())


def test_labels_that_are_sets() -> None:
    both = samples(0, 1)
    both.labels = np.array([[1, 1, 0], [0, 0, 0]])
    assert RawData(("a", "b", "c"), {"train": both}).task == "multilabel"
    assert RawData(("a", "b"), {"train": samples(0, 1)}).task == "single-label"
    with pytest.raises(DataError, match="the test split has one label per image, and the train split several"):
        RawData(("a", "b", "c"), {"train": both, "test": samples(0, 1)})
    with pytest.raises(DataError, match="labels of the test split are wrong"):
        RawData(("a", "b", "c"), {"train": samples(0, 1), "test": both})
    for wrong in ([[1, 0], [0, 1]], [[2, 0, 0], [0, 0, 0]]):
        bad = samples(0, 1)
        bad.labels = np.array(wrong)
        with pytest.raises(DataError, match="labels of the train split are wrong"):
            RawData(("a", "b", "c"), {"train": bad})
