"""The data section, and how it makes the networks see an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgekd import plugins
from edgekd.errors import RecipeError
from edgekd.recipe.data_settings import DataSettings
from edgekd.recipe.load import from_mapping
from edgekd.recipe.schema import json_schema
from edgekd.runs import settings_json
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
    with pytest.raises(ValidationError, match=r"std must be from 1e-06 to 1e\+06; found: \[0.3, 1e-30, 0.3\]"):
        settings(std=[0.3, 1e-30, 0.3])
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


SOURCE = '''
from edgekd.data.sources import Source
from pydantic import Field

from edgekd.recipe.settings import DataSettings, Positive


class ShelfSettings(DataSettings):
    """Which books."""

    shelf: Positive = Field(description="the number of the shelf")
    languages: tuple[str, ...] = Field(("en",), description="languages to read")


def nothing(settings):
    return {}


SOURCE = Source(read=nothing, fingerprint=nothing, mirror=False, settings=ShelfSettings)
'''


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe over a data source from outside that has options of its own."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "books.py").write_text(SOURCE)
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    network = {"model": "cifar/resnet8"}
    data = {"source": "books", "shelf": 3, "languages": ["de", "fr"]}
    return {"name": "a", "data": data, "teacher": {**network, "train": {"epochs": 1}}, "student": network}


def test_a_source_from_outside_has_options_of_its_own(books: dict[str, Any]) -> None:
    settings = from_mapping(books).settings
    assert settings.data.model_dump(mode="json", exclude_defaults=True) == books["data"]
    assert settings.model_dump(mode="json")["data"]["languages"] == ["de", "fr"]
    books["data"] = {"source": "books"}
    with pytest.raises(RecipeError, match=r"data.shelf: is missing"):
        from_mapping(books)
    books["data"] = {"source": "books", "shelf": 0, "langages": ["de"], "delimiter": ";"}
    with pytest.raises(RecipeError) as caught:
        from_mapping(books)
    for message in (
        "data.shelf: must be above 0; found: 0",
        "data.langages: unknown key; did you mean 'languages'? Known: augment, ",
        "data.delimiter: not an option of this source, but of csv-file",
    ):
        assert any(message in problem for problem in caught.value.problems), message
    assert len(caught.value.problems) == 3


def test_the_options_of_a_misspelt_source_are_not_reported(books: dict[str, Any]) -> None:
    for source in ("bocks", None, ["books"]):
        books["data"] = {"source": source, "shelf": 3, "imge_size": 16}
        with pytest.raises(RecipeError) as caught:
            from_mapping(books)
        assert [problem.split(": ")[0].split(" ")[1] for problem in caught.value.problems] == [
            "data.source",
            "data.imge_size",
        ]
    books["data"] = "books"
    with pytest.raises(RecipeError, match="data: must be a mapping"):
        from_mapping(books)


def test_options_inside_a_scheme_are_those_of_its_source(books: dict[str, Any]) -> None:
    task = {"data": {"source": "books", "shelf": 4}, "teacher": books["teacher"]}
    books["distill"] = {"scheme": {"name": "multi-task", "tasks": {"colour": task}}}
    scheme = from_mapping(books).settings.distill.scheme
    parsed = plugins.load("scheme", "multi-task").parse(scheme)
    assert parsed.tasks["colour"].data.shelf == 4
    assert parsed.model_dump(mode="json")["tasks"]["colour"]["data"]["shelf"] == 4
    task["data"] = {"source": "books", "shelf": 4, "langages": ["de"]}
    with pytest.raises(RecipeError, match="data.langages: unknown parameter of multi-task; did you mean 'languages"):
        from_mapping(books)


def test_the_schema_has_the_options_of_every_source(books: dict[str, Any]) -> None:
    sections = {each["title"]: each for each in json_schema()["$defs"]["DataSettings"]["oneOf"]}
    assert set(sections) == set(plugins.names("source"))
    assert sections["books"]["properties"]["shelf"]["description"] == "the number of the shelf"
    assert sections["books"]["required"] == ["source", "shelf"]
    assert {"delimiter", "task", "classes"} <= set(sections["csv-file"]["properties"])
    for key in ("delimiter", "shelf", "task", "classes"):
        assert key not in sections["digits"]["properties"]


def test_options_decide_what_is_read_and_so_the_key(books: dict[str, Any]) -> None:
    source, data = plugins.load("source", "books"), from_mapping(books).settings.data
    assert source.options_of(data) == {"shelf": 3, "languages": ["de", "fr"]}
    assert settings_json(data)["shelf"] == 3
    assert source.options_of(source.settings(source="books", shelf=1, image_size=8)) == {"shelf": 1}
